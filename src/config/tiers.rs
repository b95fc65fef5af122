//! The tiers as they are written in TOML. Their names are data: `OpenAI` renames its own from time to time.

use std::{collections::BTreeSet, num::NonZeroU64, sync::Arc};

use serde::Deserialize;
use toml::Spanned;

use super::page::Page;
use crate::domain::{
    catalog::{Qualification, Tier},
    keys::AllowedModels,
    limits::{Limits, limit},
    projects::TierId,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TiersFile {
    /// From the lowest to the highest.
    tiers: Vec<TierTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierTable {
    id: Spanned<String>,
    name: String,
    default: Option<Spanned<bool>>,
    qualification: Option<Spanned<QualificationTable>>,
    #[serde(default, deserialize_with = "limit")]
    monthly_usage_limit_dollars: Option<NonZeroU64>,
    models: Option<Spanned<Vec<Spanned<String>>>>,
    default_limits: Limits,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct QualificationTable {
    /// Files written for earlier versions speak of payments.
    #[serde(default, alias = "paid_dollars")]
    spent_dollars: u64,
    #[serde(default, alias = "days_since_first_payment")]
    days_since_first_spend: u32,
}

impl TiersFile {
    /// `names` are those that models may be called by; `None` is any.
    pub(super) fn tiers(self, names: Option<&BTreeSet<Arc<str>>>, page: &mut Page) -> Vec<Tier> {
        if self.tiers.is_empty() {
            page.problem(0..0, "there must be a tier: without one a project would have no limits at all");
        }
        let defaults = self.tiers.iter().filter_map(|tier| tier.default.as_ref()).filter(|default| *default.get_ref());
        for again in defaults.skip(1) {
            page.problem(again.span(), "projects that name no tier are in one tier: only one can be the default");
        }
        (0..).zip(self.tiers).map(|(order, tier)| tier.tier(order, names, page)).collect()
    }
}

impl TierTable {
    fn tier(self, order: u32, names: Option<&BTreeSet<Arc<str>>>, page: &mut Page) -> Tier {
        let id = self.id.get_ref();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            page.problem(self.id.span(), format!("{id:?} is no tier id: letters, digits, - and _ only"));
        }
        let qualification = self.qualification.map(|table| (table.span(), table.into_inner()));
        if let Some((span, QualificationTable { spent_dollars: 0, days_since_first_spend: 0 })) = &qualification {
            // Every project would be moved here.
            let message = "a qualification asks for spent_dollars or days_since_first_spend; leave it out for a tier that nobody \
                           reaches by spending";
            page.problem(span.clone(), message.to_owned());
        }
        Tier {
            id: TierId(self.id.into_inner().into()),
            name: self.name,
            order,
            is_default: self.default.is_some_and(Spanned::into_inner),
            qualification: qualification.map(|(_, table)| Qualification {
                spent_dollars: table.spent_dollars,
                days_since_first_spend: table.days_since_first_spend,
            }),
            monthly_usage_limit_dollars: self.monthly_usage_limit_dollars,
            models: self.models.map(|models| allowed(models, names, page)),
            default_limits: self.default_limits,
        }
    }
}

fn allowed(
    models: Spanned<Vec<Spanned<String>>>,
    names: Option<&BTreeSet<Arc<str>>>,
    page: &mut Page,
) -> AllowedModels {
    if models.get_ref().is_empty() {
        page.problem(models.span(), "a tier that allows no model is of no use; leave models out for all of them");
    }
    let is_known = |name: &str| names.is_none_or(|names| names.contains(name));
    for name in models.get_ref().iter().filter(|name| !is_known(name.get_ref())) {
        page.problem(name.span(), format!("there is no model {:?} in the catalog", name.get_ref()));
    }
    AllowedModels::new(models.into_inner().into_iter().map(Spanned::into_inner))
}
