//! The model pages: what each model is, what it costs from which date, and its limits per tier.

mod groups;
mod tiers;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

pub use self::tiers::{Qualification, Tier};
use super::{
    keys::{ApiKey, Caller},
    limits::Limits,
    pricing::Prices,
    projects::{Project, TierId},
    spend::{Payer, SpendLimit},
    time::UnixNanos,
};

/// One model page (`config/models/*.toml`).
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub id: Arc<str>,
    pub description: String,
    /// Unix seconds, as `GET /v1/models` shows it.
    pub created: u64,
    pub owned_by: String,
    pub context_window_tokens: Option<u64>,
    pub max_output_tokens: Option<u64>,
    /// `YYYY-MM-DD`.
    pub knowledge_cutoff: Option<String>,
    /// `YYYY-MM-DD`.
    pub shutdown_date: Option<String>,
    pub endpoints: Vec<String>,
    pub input_modalities: Vec<String>,
    pub output_modalities: Vec<String>,
    pub features: BTreeMap<String, bool>,
    pub snapshots: Vec<Snapshot>,
    /// What the undated name stands for.
    pub default_snapshot: Option<Arc<str>>,
    /// Sorted by the date they start.
    pub prices: Vec<Arc<Prices>>,
    pub limits: BTreeMap<TierId, Limits>,
    /// Models of one group share their buckets, and so their limits; by default a model's own id.
    pub limit_group: Arc<str>,
}

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub id: Arc<str>,
    pub shutdown_date: Option<String>,
    /// Only where they differ from the model's.
    pub prices: Vec<Arc<Prices>>,
}

/// All models and tiers. Immutable; a reload makes a new one.
#[derive(Debug, Default)]
pub struct Catalog {
    models: Vec<Arc<Model>>,
    tiers: BTreeMap<TierId, Tier>,
    /// Ids and snapshot ids.
    names: HashMap<Arc<str>, (usize, Option<usize>)>,
    /// The ids of the models of each limit group.
    groups: HashMap<Arc<str>, Vec<Arc<str>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    #[error("the model name {0:?} is used twice")]
    DuplicateName(String),
    #[error("the tier {0:?} is used twice")]
    DuplicateTier(String),
    #[error("model {model:?} has limits for {tier:?}, which is no tier")]
    UnknownTier { model: String, tier: String },
    #[error("model {model:?}: {snapshot:?} is the default snapshot but not in the list of snapshots")]
    UnknownDefaultSnapshot { model: String, snapshot: String },
    #[error("models {other:?} and {model:?} of the limit group {group:?} have different limits for {tier:?}")]
    LimitsDiffer { group: String, model: String, other: String, tier: String },
}

/// A name found in the catalog: a model, and the snapshot if the name was one.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    pub model: &'a Arc<Model>,
    pub snapshot: Option<&'a Snapshot>,
}

impl Catalog {
    /// All problems at once, so that a person mends them in one go.
    pub fn new(models: Vec<Model>, tiers: Vec<Tier>) -> Result<Self, Vec<CatalogError>> {
        let mut problems = Vec::new();
        let mut catalog = Self::default();
        for tier in tiers {
            let id = tier.id.clone();
            if catalog.tiers.insert(id.clone(), tier).is_some() {
                problems.push(CatalogError::DuplicateTier(id.as_str().to_owned()));
            }
        }
        for model in models {
            catalog.add(model, &mut problems);
        }
        problems.extend(catalog.differing_limits());
        if problems.is_empty() { Ok(catalog) } else { Err(problems) }
    }

    fn add(&mut self, model: Model, problems: &mut Vec<CatalogError>) {
        let index = self.models.len();
        let snapshots = model.snapshots.iter().enumerate().map(|(at, snapshot)| (Arc::clone(&snapshot.id), Some(at)));
        for (name, snapshot) in std::iter::once((Arc::clone(&model.id), None)).chain(snapshots) {
            if self.names.insert(Arc::clone(&name), (index, snapshot)).is_some() {
                problems.push(CatalogError::DuplicateName(name.to_string()));
            }
        }
        for tier in model.limits.keys().filter(|tier| !self.tiers.contains_key(tier)) {
            let (model, tier) = (model.id.to_string(), tier.as_str().to_owned());
            problems.push(CatalogError::UnknownTier { model, tier });
        }
        if let Some(default) = &model.default_snapshot
            && !model.snapshots.iter().any(|snapshot| snapshot.id == *default)
        {
            let (model, snapshot) = (model.id.to_string(), default.to_string());
            problems.push(CatalogError::UnknownDefaultSnapshot { model, snapshot });
        }
        self.groups.entry(Arc::clone(&model.limit_group)).or_default().push(Arc::clone(&model.id));
        self.models.push(Arc::new(model));
    }

    pub fn resolve(&self, name: &str) -> Option<Named<'_>> {
        let (model, snapshot) = self.names.get(name)?;
        let model = self.models.get(*model)?;
        Some(Named { model, snapshot: snapshot.and_then(|at| model.snapshots.get(at)) })
    }

    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    pub fn tiers(&self) -> impl Iterator<Item = &Tier> {
        self.tiers.values()
    }

    pub fn tier(&self, id: &TierId) -> Option<&Tier> {
        self.tiers.get(id)
    }

    /// Whether the model called `requested` may be called, by the terms of the key and its project and by the project's tier;
    /// `named` is what the catalog has under that name.
    pub fn may_use(&self, caller: &Caller, requested: &str, named: Option<&Named<'_>>) -> bool {
        let page = named.map(|named| named.model.as_ref());
        self.tier_has(&caller.project().tier, requested, page) && caller.may_use(requested, named)
    }

    /// Whether the projects of a tier may call the model `requested`; `page` is what the catalog has under that name.
    pub fn tier_has(&self, tier: &TierId, requested: &str, page: Option<&Model>) -> bool {
        let models = self.tier(tier).and_then(|tier| tier.models.as_ref());
        models.is_none_or(|models| models.allows(requested, page.map(|page| page.id.as_ref())))
    }

    /// Who pays for the requests of a key, and up to what.
    pub fn payer<'a>(&self, key: &'a ApiKey) -> Payer<'a> {
        let tier = self.usage_limit(&key.project);
        Payer { key: &key.id, budget: key.terms.budget.as_ref(), project: &key.project, tier }
    }

    /// The monthly usage limit of a project's tier.
    pub fn usage_limit(&self, project: &Project) -> Option<SpendLimit> {
        self.tier(&project.tier).and_then(Tier::spend_limit)
    }

    /// The limits of a tier for a model; for a name that is not in the catalog the tier's defaults.
    pub fn limits(&self, tier: &TierId, model: Option<&Model>) -> Limits {
        let own = model.and_then(|model| model.limits.get(tier));
        own.copied().or_else(|| self.tier(tier).map(|tier| tier.default_limits)).unwrap_or_default()
    }

    /// The limits of a project for a model: its tier's, and in their place those that it has of its own, on this model or
    /// on another of the limit group.
    pub fn limits_of(&self, project: &Project, model: Option<&Model>) -> Limits {
        let tier = self.limits(&project.tier, model);
        let own = model.and_then(|model| project.terms.own_limits(self.sharing(model)));
        own.map_or(tier, |own| tier.overridden_by(&own))
    }

    /// The names that stand for the same model as `name`: itself, and for a model id also its snapshots.
    pub fn names_of(&self, name: &str) -> Vec<Arc<str>> {
        let Some(named) = self.resolve(name) else { return vec![name.into()] };
        let snapshots = named.model.snapshots.iter().map(|snapshot| Arc::clone(&snapshot.id));
        match named.snapshot {
            Some(snapshot) => vec![Arc::clone(&snapshot.id)],
            None => std::iter::once(Arc::clone(&named.model.id)).chain(snapshots).collect(),
        }
    }
}

impl<'a> Named<'a> {
    /// The prices in force at `now`; `None` when there are none, or none yet. An undated name costs what the snapshot costs
    /// that it stands for, and that it is in the books as.
    pub fn prices(&self, now: UnixNanos) -> Option<&Arc<Prices>> {
        let default = |id: &Arc<str>| self.model.snapshots.iter().find(|snapshot| snapshot.id == *id);
        let snapshot = self.snapshot.or_else(|| self.model.default_snapshot.as_ref().and_then(default));
        let own = snapshot.map(|snapshot| snapshot.prices.as_slice()).filter(|prices| !prices.is_empty());
        let listed = own.unwrap_or(&self.model.prices);
        listed.iter().rev().find(|prices| prices.from <= now).filter(|prices| !prices.is_empty())
    }

    /// The dated name the answer will carry: the snapshot, else what the model's name stands for.
    pub fn billed_name(&self) -> &'a Arc<str> {
        match self.snapshot {
            Some(snapshot) => &snapshot.id,
            None => self.model.default_snapshot.as_ref().unwrap_or(&self.model.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{money::Money, usage::LineItem};

    fn prices(from_seconds: u64, pico: i64) -> Arc<Prices> {
        let mut prices = Prices { from: UnixNanos::from_seconds(from_seconds), ..Prices::default() };
        prices.standard.set(LineItem::InputText, Money::from_pico(pico));
        Arc::new(prices)
    }

    fn model() -> Model {
        let snapshot = |id: &str| Snapshot { id: id.into(), ..Snapshot::default() };
        Model {
            id: "m".into(),
            snapshots: vec![snapshot("m-1"), Snapshot { prices: vec![prices(0, 9)], ..snapshot("m-2") }],
            default_snapshot: Some("m-1".into()),
            prices: vec![prices(10, 1), prices(20, 2)],
            ..Model::default()
        }
    }

    #[test]
    fn snapshots_resolve_to_their_model_and_may_have_their_own_prices() {
        let catalog = Catalog::new(vec![model()], vec![]).unwrap();
        let price = |name: &str, at| {
            let prices = catalog.resolve(name).unwrap().prices(UnixNanos::from_seconds(at)).cloned();
            prices.and_then(|p| p.standard.get(LineItem::InputText)).map(Money::pico)
        };
        assert_eq!(price("m", 9), None);
        assert_eq!((price("m", 10), price("m", 19), price("m-1", 20)), (Some(1), Some(1), Some(2)));
        assert_eq!(price("m-2", 30), Some(9));
        assert_eq!(catalog.resolve("m").unwrap().billed_name().as_ref(), "m-1");
        assert!(catalog.resolve("M").is_none());
        assert_eq!(catalog.names_of("m").len(), 3);
        assert_eq!(catalog.names_of("other"), ["other".into()]);
    }

    #[test]
    fn an_undated_name_costs_what_its_snapshot_costs() {
        let catalog = Catalog::new(vec![Model { default_snapshot: Some("m-2".into()), ..model() }], vec![]).unwrap();
        for name in ["m", "m-2"] {
            let named = catalog.resolve(name).unwrap();
            assert_eq!(named.billed_name().as_ref(), "m-2");
            let prices = named.prices(UnixNanos::from_seconds(30)).unwrap();
            assert_eq!(prices.standard.get(LineItem::InputText), Some(Money::from_pico(9)), "{name}");
        }
    }

    #[test]
    fn problems_are_reported_together() {
        let bad = Model {
            default_snapshot: Some("nowhere".into()),
            limits: BTreeMap::from([(TierId::from("gold"), Limits::default())]),
            ..model()
        };
        assert_eq!(Catalog::new(vec![model(), bad], vec![]).unwrap_err().len(), 5);
    }
}
