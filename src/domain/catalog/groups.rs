//! Models that share their buckets, and so their limits: two limits on one bucket would hold for neither model.

use std::sync::Arc;

use super::{Catalog, CatalogError, Model, Tier};

impl Catalog {
    /// The ids of the models of `model`'s limit group, its own among them.
    pub fn sharing(&self, model: &Model) -> &[Arc<str>] {
        self.groups.get(&model.limit_group).map_or(&[], Vec::as_slice)
    }

    /// Of each model whose limits are not those of the first of its limit group, one tier that shows it.
    pub(super) fn differing_limits(&self) -> Vec<CatalogError> {
        let differing = |model: &Arc<Model>| {
            let first = self.resolve(self.sharing(model).first()?)?.model;
            let differs = |tier: &&Tier| self.limits(&tier.id, Some(first)) != self.limits(&tier.id, Some(model));
            let tier = self.tiers().filter(|_| first.id != model.id).find(differs)?;
            Some(CatalogError::LimitsDiffer {
                group: model.limit_group.to_string(),
                model: model.id.to_string(),
                other: first.id.to_string(),
                tier: tier.id.as_str().to_owned(),
            })
        };
        self.models().iter().filter_map(differing).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, num::NonZeroU32};

    use super::*;
    use crate::domain::{
        ids::ProjectId,
        limits::Limits,
        projects::{Project, ProjectTerms, RateLimitUpdate, TierId},
        time::UnixNanos,
    };

    fn per_minute(requests: u32, tokens: u32) -> Limits {
        let [requests_per_minute, tokens_per_minute] = [requests, tokens].map(NonZeroU32::new);
        Limits { requests_per_minute, tokens_per_minute, ..Limits::default() }
    }

    fn model(id: &str, group: &str, limits: &[(&str, Limits)]) -> Model {
        let limits = limits.iter().map(|(tier, limits)| (TierId::from(*tier), *limits));
        Model { id: id.into(), limit_group: group.into(), limits: limits.collect(), ..Model::default() }
    }

    fn catalog(models: Vec<Model>) -> Result<Catalog, Vec<CatalogError>> {
        let tier = |id: &str| Tier {
            id: TierId::from(id),
            name: String::new(),
            order: 0,
            qualification: None,
            monthly_usage_limit_dollars: None,
            models: None,
            is_default: false,
            default_limits: per_minute(500, 9_000),
        };
        Catalog::new(models, ["tier1", "tier2"].map(tier).into())
    }

    fn project(own: [(&str, Limits); 3]) -> Project {
        let rate_limits = own.map(|(model, limits)| (model.to_owned(), limits));
        Project {
            id: ProjectId::parse("proj_one").unwrap(),
            name: String::new(),
            tier: TierId::from("tier1"),
            automatic_tier: false,
            terms: ProjectTerms { rate_limits: BTreeMap::from(rate_limits), ..ProjectTerms::default() },
            created_at: UnixNanos(0),
            archived_at: None,
        }
    }

    #[test]
    fn pages_of_a_limit_group_agree_on_the_limits_of_every_tier() {
        let (few, default) = (per_minute(10, 0), per_minute(500, 9_000));
        let groups = |b: &[(&str, Limits)]| {
            // A model of another group has what limits it likes.
            catalog(vec![model("a", "g", &[("tier2", few)]), model("b", "g", b), model("c", "c", &[])])
        };
        for agreed in [&[("tier2", few)][..], &[("tier1", default), ("tier2", few)]] {
            assert!(groups(agreed).is_ok());
        }
        for (differing, tier) in [(&[][..], "tier2"), (&[("tier1", few), ("tier2", few)], "tier1")] {
            let problems: Vec<_> = groups(differing).unwrap_err().iter().map(ToString::to_string).collect();
            let expected =
                format!("models \"a\" and \"b\" of the limit group \"g\" have different limits for {tier:?}");
            assert_eq!(problems, [expected]);
        }
    }

    #[test]
    fn what_a_project_has_of_its_own_on_one_model_holds_for_all_of_its_group() {
        let catalog = catalog(vec![model("a", "g", &[]), model("b", "g", &[]), model("c", "c", &[])]).unwrap();
        let page = |name| catalog.resolve(name).unwrap().model;
        let limits = |project: &Project| ["a", "b", "c"].map(|name| catalog.limits_of(project, Some(page(name))));
        // As they were set while each model was a group of its own.
        let mut project = project([("a", per_minute(10, 0)), ("b", per_minute(700, 300)), ("c", per_minute(0, 8))]);
        let (both, alone) = (|requests| per_minute(requests, 300), per_minute(500, 8));
        assert_eq!(limits(&project), [both(10), both(10), alone]);
        for (on, requests, expected) in [("b", NonZeroU32::new(40), 40), ("a", None, 500)] {
            let update = RateLimitUpdate { requests_per_minute: Some(requests), ..RateLimitUpdate::default() };
            project.terms.update_rate_limit(catalog.sharing(page(on)), &update);
            assert_eq!(limits(&project), [both(expected), both(expected), alone]);
        }
    }
}
