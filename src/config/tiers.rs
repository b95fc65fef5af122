//! The tiers as they are written in TOML. Their names are data: `OpenAI` renames its own from time to time.

use serde::Deserialize;
use toml::Spanned;

use super::page::Page;
use crate::domain::{
    catalog::{Qualification, Tier},
    limits::Limits,
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
    #[serde(default)]
    qualification: QualificationTable,
    monthly_usage_limit_dollars: Option<u64>,
    default_limits: Limits,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct QualificationTable {
    #[serde(default)]
    paid_dollars: u64,
    #[serde(default)]
    days_since_first_payment: u32,
}

impl TiersFile {
    pub(super) fn tiers(self, page: &mut Page) -> Vec<Tier> {
        if !self.tiers.iter().any(|tier| tier.id.get_ref() == TierId::DEFAULT) {
            // Without its tier a project would have no limits at all.
            page.problem(
                0..0,
                format!("there must be a tier {:?}: projects that name none are in it", TierId::DEFAULT),
            );
        }
        (0..).zip(self.tiers).map(|(order, tier)| tier.tier(order, page)).collect()
    }
}

impl TierTable {
    fn tier(self, order: u32, page: &mut Page) -> Tier {
        let id = self.id.get_ref();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            page.problem(self.id.span(), format!("{id:?} is no tier id: letters, digits, - and _ only"));
        }
        Tier {
            id: TierId(self.id.into_inner().into()),
            name: self.name,
            order,
            qualification: Qualification {
                paid_dollars: self.qualification.paid_dollars,
                days_since_first_payment: self.qualification.days_since_first_payment,
            },
            monthly_usage_limit_dollars: self.monthly_usage_limit_dollars,
            default_limits: self.default_limits,
        }
    }
}
