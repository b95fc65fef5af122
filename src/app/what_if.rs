//! The ledger of a data directory, replayed against other limits, whether or not a gateway runs on it.

use std::{collections::HashMap, sync::Arc};

use super::ledger::{LedgerError, open_ledger};
use crate::{
    config::{OtherLimits, Reserve, Settings},
    domain::{
        catalog::{Catalog, Model},
        ids::{KeyId, ProjectId},
        keys::ApiKey,
        limits::Limits,
        projects::{Project, TierId},
        time::UnixNanos,
        what_if::{Booked, Found, Terms, WhatIf, warm_up_nanos},
    },
    proxy::UNLISTED,
    store::{
        StoreError,
        accounts::{self, Saved},
        past::{Admitted, Past},
    },
};

/// Which requests, and which limits in place of those in force.
#[derive(Clone, Debug)]
pub struct Question {
    /// Requests admitted from here on ...
    pub from: UnixNanos,
    /// ... and before this.
    pub until: UnixNanos,
    pub against: Against,
    pub project: Option<ProjectId>,
    /// With the models that share its limits.
    pub model: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Against {
    /// As if all projects were in this tier, with its models and its limits. What an administrator set for a project itself stays.
    Tier(TierId),
    /// In place of what tier and administrator say. Every model that was called may be called.
    Limits(OtherLimits),
}

/// What was found, and what its keys are called.
#[derive(Clone, Debug)]
pub struct Replayed {
    pub found: Found,
    pub names: HashMap<KeyId, Names>,
    /// Requests admitted from here on were replayed; those before [`Question::from`] only for what they leave of the limits.
    pub replayed_from: UnixNanos,
    /// Entries that ended before then may be missing.
    pub dropped_before: UnixNanos,
}

#[derive(Clone, Debug)]
pub struct Names {
    pub key: String,
    pub project: String,
}

#[derive(Debug, thiserror::Error)]
pub enum WhatIfError {
    #[error("--tier: there is no tier {0:?} in the tiers file; it has {1}")]
    NoSuchTier(String, String),
    #[error("--project: there is no project {0} in this ledger; `GET /v1/organization/projects` lists those there are")]
    NoSuchProject(ProjectId),
    #[error("--model: there is no model {0:?} in the catalog; `GET /v1/models` lists those there are")]
    NoSuchModel(String),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<StoreError> for WhatIfError {
    fn from(error: StoreError) -> Self {
        Self::Ledger(error.into())
    }
}

/// `told` hears how many requests have been replayed so far.
pub async fn what_if(
    settings: &Settings,
    catalog: &Catalog,
    question: &Question,
    mut told: impl FnMut(u64),
) -> Result<Replayed, WhatIfError> {
    let only_group = question.limit_group(catalog)?;
    let store = open_ledger(settings).await?;
    let accounts = accounts::load(&store).await?;
    if let Some(id) = question.project.as_ref().filter(|id| !accounts.projects.contains_key(id)) {
        return Err(WhatIfError::NoSuchProject(id.clone()));
    }
    let otherwise = Otherwise::new(settings, catalog, question, &accounts);
    let replayed_from = UnixNanos(question.from.0.saturating_sub(warm_up_nanos(otherwise.has_daily_rates())));
    let admitted = Admitted { from: replayed_from, until: question.until, project_id: question.project.clone() };
    let mut past = Past::of(&store, admitted);
    let mut what_if = WhatIf::new(question.from, question.until);
    let mut requests = 0;
    while let Some(booked) = past.next().await? {
        if let Some(terms) = otherwise.terms(&booked)
            && only_group.as_ref().is_none_or(|group| *group == terms.limit_group)
        {
            what_if.add(booked, terms);
            requests += 1;
            told(requests);
        }
    }
    let (found, dropped_before) = (what_if.finish(), past.dropped_before().await?);
    store.close().await;
    let names = otherwise
        .keys
        .into_iter()
        .map(|(id, key)| (id.clone(), Names { key: key.name.clone(), project: key.project.name.clone() }));
    Ok(Replayed { names: names.collect(), found, replayed_from, dropped_before })
}

impl Question {
    fn limit_group(&self, catalog: &Catalog) -> Result<Option<Arc<str>>, WhatIfError> {
        if let Against::Tier(tier) = &self.against
            && catalog.tier(tier).is_none()
        {
            let mut tiers: Vec<_> = catalog.tiers().collect();
            tiers.sort_by_key(|tier| tier.order);
            let tiers: Vec<_> = tiers.into_iter().map(|tier| tier.id.as_str()).collect();
            return Err(WhatIfError::NoSuchTier(tier.as_str().to_owned(), tiers.join(", ")));
        }
        let group = |model: &String| match catalog.resolve(model) {
            Some(named) => Ok(Arc::clone(&named.model.limit_group)),
            None => Err(WhatIfError::NoSuchModel(model.clone())),
        };
        self.model.as_ref().map(group).transpose()
    }
}

/// The limits as they would have been.
struct Otherwise<'a> {
    catalog: &'a Catalog,
    limits: Option<&'a OtherLimits>,
    tier: Option<&'a TierId>,
    projects: HashMap<&'a ProjectId, Arc<Project>>,
    keys: HashMap<&'a KeyId, &'a ApiKey>,
    reserve: Reserve,
    unlisted: Arc<str>,
}

impl<'a> Otherwise<'a> {
    fn new(settings: &Settings, catalog: &'a Catalog, question: &'a Question, accounts: &'a Saved) -> Self {
        let project = |project: &Arc<Project>| match &question.against {
            Against::Tier(tier) => Arc::new(Project { tier: tier.clone(), ..Project::clone(project) }),
            Against::Limits(_) => Arc::clone(project),
        };
        let (tier, limits) = match &question.against {
            Against::Tier(tier) => (Some(tier), None),
            Against::Limits(limits) => (None, Some(limits)),
        };
        Self {
            catalog,
            limits,
            tier,
            projects: accounts.projects.iter().map(|(id, found)| (id, project(found))).collect(),
            keys: accounts.keys.iter().map(|key| (&key.id, key)).collect(),
            reserve: settings.reserve,
            unlisted: UNLISTED.into(),
        }
    }

    fn limits_of(&self, project: &Project, page: Option<&Model>) -> Limits {
        let other = self.limits.and_then(|limits| limits.limits(page));
        other.unwrap_or_else(|| self.catalog.limits_of(project, page))
    }

    /// Some request may be told to a limit per day.
    fn has_daily_rates(&self) -> bool {
        let pages = || self.catalog.models().iter().map(|page| Some(page.as_ref())).chain([None]);
        let of_project = |project: &Project| pages().any(|page| self.limits_of(project, page).has_daily_rates());
        self.keys.values().any(|key| key.terms.limits.has_daily_rates())
            || self.projects.values().any(|project| of_project(project))
    }

    /// `None` for a key that was made since the accounts were read.
    fn terms(&self, booked: &Booked) -> Option<Terms> {
        let (project, key) = (self.projects.get(&booked.project_id)?, self.keys.get(&booked.key_id)?);
        let page = self.catalog.resolve(&booked.requested_model).map(|named| named.model.as_ref());
        let has_model = |tier| self.catalog.tier_has(tier, &booked.requested_model, page);
        Some(Terms {
            is_allowed: self.tier.is_none_or(has_model),
            limit_group: page.map_or(&self.unlisted, |page| &page.limit_group).clone(),
            project: self.limits_of(project, page),
            key: key.terms.limits,
            guess_gives_way: self.guess_gives_way(booked, page),
        })
    }

    /// Where maxima are reserved whole, there is a guess only when neither the request nor the model's page states one.
    fn guess_gives_way(&self, booked: &Booked, page: Option<&Model>) -> bool {
        let is_unstated = || page.is_none_or(|page| page.max_output_tokens.is_none());
        self.reserve != Reserve::Strict || is_unstated() && booked.held.is_some_and(|held| held.may_be_guess())
    }
}
