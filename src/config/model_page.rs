//! A model page as it is written in TOML, and its way into the catalog.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use toml::Spanned;

use super::page::Page;
use crate::domain::{
    catalog::{Model, Snapshot},
    limits::Limits,
    money::Money,
    pricing::{Prices, Rates},
    projects::TierId,
    time::UnixNanos,
    usage::LineItem,
};

/// What flows in and out of models.
const MODALITIES: [&str; 3] = ["text", "audio", "image"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelPage {
    id: Spanned<String>,
    description: String,
    created: u64,
    owned_by: String,
    context_window_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    knowledge_cutoff: Option<Spanned<String>>,
    shutdown_date: Option<Spanned<String>>,
    endpoints: Vec<Spanned<String>>,
    default_snapshot: Option<String>,
    limit_group: Option<String>,
    #[serde(default)]
    modalities: Modalities,
    #[serde(default)]
    features: BTreeMap<String, bool>,
    #[serde(default)]
    snapshots: Vec<SnapshotTable>,
    #[serde(default)]
    prices: Vec<PriceTable>,
    #[serde(default)]
    limits: BTreeMap<String, Limits>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Modalities {
    #[serde(default)]
    input: Vec<Spanned<String>>,
    #[serde(default)]
    output: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotTable {
    id: Spanned<String>,
    shutdown_date: Option<Spanned<String>>,
    #[serde(default)]
    prices: Vec<PriceTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceTable {
    from: Spanned<String>,
    /// Requests with more input tokens than this cost `long_context`.
    long_context_threshold_input_tokens: Option<Spanned<u64>>,
    standard: RateTable,
    #[serde(default)]
    batch: RateTable,
    #[serde(default)]
    flex: RateTable,
    #[serde(default)]
    priority: RateTable,
    long_context: Option<RateTable>,
}

/// Line item to dollars per million tokens. The dollars are text, because a float cannot hold them.
type RateTable = BTreeMap<String, Spanned<String>>;

impl ModelPage {
    /// What cannot be read is noted on the page and left out.
    pub(super) fn model(self, page: &mut Page) -> Model {
        let id = name(self.id, page);
        let snapshots = self.snapshots.into_iter().map(|snapshot| snapshot.snapshot(page)).collect();
        let endpoints = self.endpoints.into_iter().map(|endpoint| {
            if !endpoint.get_ref().starts_with("/v1/") {
                page.problem(
                    endpoint.span(),
                    format!("{:?} is no endpoint: it should begin with /v1/", endpoint.get_ref()),
                );
            }
            endpoint.into_inner()
        });
        Model {
            endpoints: endpoints.collect(),
            description: self.description,
            created: self.created,
            owned_by: self.owned_by,
            context_window_tokens: self.context_window_tokens,
            max_output_tokens: self.max_output_tokens,
            knowledge_cutoff: self.knowledge_cutoff.map(|date| page.date(date).0),
            shutdown_date: self.shutdown_date.map(|date| page.date(date).0),
            input_modalities: modalities(self.modalities.input, page),
            output_modalities: modalities(self.modalities.output, page),
            features: self.features,
            snapshots,
            default_snapshot: self.default_snapshot.map(Into::into),
            prices: price_history(self.prices, page),
            limits: self.limits.into_iter().map(|(tier, limits)| (TierId(tier.into()), limits)).collect(),
            limit_group: self.limit_group.map_or_else(|| Arc::clone(&id), Into::into),
            id,
        }
    }
}

impl SnapshotTable {
    fn snapshot(self, page: &mut Page) -> Snapshot {
        Snapshot {
            id: name(self.id, page),
            shutdown_date: self.shutdown_date.map(|date| page.date(date).0),
            prices: price_history(self.prices, page),
        }
    }
}

impl PriceTable {
    fn prices(self, page: &mut Page) -> Prices {
        let threshold = self.long_context_threshold_input_tokens;
        let long_context = match (threshold, self.long_context) {
            (Some(threshold), Some(table)) => Some((threshold.into_inner(), rates(table, page))),
            (None, None) => None,
            _ => {
                let message = "long_context and long_context_threshold_input_tokens need each other";
                page.problem(self.from.span(), message);
                None
            }
        };
        let span = self.from.span();
        let prices = Prices {
            from: page.date(self.from).1,
            standard: rates(self.standard, page),
            batch: rates(self.batch, page),
            flex: rates(self.flex, page),
            priority: rates(self.priority, page),
            long_context,
        };
        if prices.is_empty() {
            page.problem(
                span,
                "the standard prices are missing; a model without token prices has no [[prices]] at all",
            );
        }
        prices
    }
}

/// Sorted by the date they start.
fn price_history(tables: Vec<PriceTable>, page: &mut Page) -> Vec<Arc<Prices>> {
    let mut starts: BTreeMap<UnixNanos, Arc<Prices>> = BTreeMap::new();
    for table in tables {
        let (span, date) = (table.from.span(), table.from.get_ref().clone());
        let prices = table.prices(page);
        if starts.insert(prices.from, Arc::new(prices)).is_some() {
            page.problem(span, format!("two prices start on {date}"));
        }
    }
    starts.into_values().collect()
}

fn rates(table: RateTable, page: &mut Page) -> Rates {
    let mut rates = Rates::default();
    for (name, dollars) in table {
        let Some(item) = LineItem::ALL.into_iter().find(|item| item.name() == name) else {
            let known = LineItem::ALL.iter().map(|item| item.name());
            page.problem(
                dollars.span(),
                format!("{name} is no line item{}", super::problem::did_you_mean(&name, known)),
            );
            continue;
        };
        match Money::per_million(dollars.get_ref()) {
            Ok(price) => rates.set(item, price),
            Err(error) => page.problem(dollars.span(), format!("{name} = {:?}: {error}", dollars.get_ref())),
        }
    }
    rates
}

/// Names go into URLs, headers and metrics.
fn name(text: Spanned<String>, page: &mut Page) -> Arc<str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/".contains(&byte);
    if text.get_ref().is_empty() || !text.get_ref().bytes().all(allowed) {
        page.problem(text.span(), format!("{:?} is no name: letters, digits and - . _ : / only", text.get_ref()));
    }
    text.into_inner().into()
}

fn modalities(names: Vec<Spanned<String>>, page: &mut Page) -> Vec<String> {
    for name in names.iter().filter(|name| !MODALITIES.contains(&name.get_ref().as_str())) {
        page.problem(name.span(), format!("{:?} is no modality: {}", name.get_ref(), MODALITIES.join(", ")));
    }
    names.into_iter().map(Spanned::into_inner).collect()
}
