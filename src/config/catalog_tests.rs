mod groups;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{catalog::load_catalog, page::first_moment, settings::Settings};
use crate::domain::{
    catalog::{Catalog, Qualification},
    limits::Limits,
    money::Money,
    pricing::{Prices, Rates},
    projects::TierId,
    time::UnixNanos,
    usage::LineItem,
};

pub(super) const SEED: &str = "gpt-4o-mini-audio-preview";

pub(super) fn built_in() -> Catalog {
    load_catalog(&Settings::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn date(text: &str) -> UnixNanos {
    first_moment(text).unwrap()
}

pub(super) fn row(catalog: &Catalog, model: &str, tier: &str) -> (u32, u32, u32, u64) {
    let model = catalog.resolve(model).map(|named| named.model.as_ref());
    let limits = catalog.limits(&TierId::from(tier), model);
    let number = |limit: Option<std::num::NonZeroU32>| limit.map_or(0, std::num::NonZeroU32::get);
    (
        number(limits.requests_per_minute),
        number(limits.requests_per_day),
        number(limits.tokens_per_minute),
        limits.batch_queue_tokens.unwrap_or_default(),
    )
}

#[test]
fn the_built_in_pages_are_all_embedded_and_named_after_their_model() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/models");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.collect();
    let catalog = built_in();
    let ids: BTreeSet<String> = catalog.models().iter().map(|model| format!("{}.toml", model.id)).collect();
    assert_eq!(ids, files);
}

#[test]
fn the_seed_model_is_as_its_page_says() {
    let catalog = built_in();
    let named = catalog.resolve(SEED).unwrap();
    let model = named.model;
    assert_eq!(model.description, "Smaller model capable of audio inputs and outputs");
    assert_eq!((model.context_window_tokens, model.max_output_tokens), (Some(128_000), Some(16_384)));
    assert_eq!(model.knowledge_cutoff.as_deref(), Some("2023-10-01"));
    assert_eq!(model.endpoints, ["/v1/chat/completions"]);
    assert_eq!((model.input_modalities.join("+"), model.output_modalities.join("+")), {
        let both = "text+audio".to_owned();
        (both.clone(), both)
    });
    let supported: Vec<_> = model.features.iter().filter(|(_, on)| **on).map(|(name, _)| name.as_str()).collect();
    assert_eq!(supported, ["function_calling", "streaming"]);
    let off: Vec<_> = model.features.iter().filter(|(_, on)| !**on).map(|(name, _)| name.as_str()).collect();
    assert_eq!(off, ["distillation", "fine_tuning", "predicted_outputs", "structured_outputs"]);
    assert_eq!(named.billed_name().as_ref(), "gpt-4o-mini-audio-preview-2024-12-17");

    assert!(named.prices(date("2024-12-16")).is_none());
    let prices = named.prices(date("2024-12-17")).unwrap();
    assert_eq!(
        listed(&prices.standard),
        [("input_text", 150_000), ("input_audio", 10_000_000), ("output_text", 600_000), ("output_audio", 20_000_000)]
    );
    assert!(prices.batch.is_empty() && prices.flex.is_empty() && prices.priority.is_empty());
}

#[test]
fn the_seed_model_has_the_limits_of_its_page_in_every_tier() {
    let catalog = built_in();
    assert_eq!(row(&catalog, SEED, "free"), (3, 200, 40_000, 0));
    assert_eq!(row(&catalog, SEED, "tier1"), (500, 10_000, 200_000, 2_000_000));
    assert_eq!(row(&catalog, SEED, "tier2"), (5_000, 0, 2_000_000, 20_000_000));
    assert_eq!(row(&catalog, SEED, "tier3"), (5_000, 0, 4_000_000, 40_000_000));
    assert_eq!(row(&catalog, SEED, "tier4"), (10_000, 0, 10_000_000, 1_000_000_000));
    assert_eq!(row(&catalog, SEED, "tier5"), (30_000, 0, 150_000_000, 15_000_000_000));
    for tier in catalog.tiers().map(|tier| tier.id.as_str()) {
        assert_eq!(row(&catalog, "a-model-nobody-knows", tier), row(&catalog, SEED, tier));
    }
    assert_eq!(row(&catalog, "gpt-audio-1.5", "tier1"), (500, 0, 30_000, 90_000));
    assert_eq!(row(&catalog, "gpt-audio-1.5", "tier5"), (10_000, 0, 30_000_000, 5_000_000_000));
}

#[test]
fn tiers_are_qualified_for_by_money_and_days() {
    let catalog = built_in();
    let mut tiers: Vec<_> = catalog.tiers().collect();
    tiers.sort_by_key(|tier| tier.order);
    let rows = tiers.iter().map(|tier| {
        let needed = tier.qualification;
        let needed = needed.map(|Qualification { spent_dollars, days_since_first_spend: days }| (spent_dollars, days));
        (tier.name.as_str(), needed, tier.monthly_usage_limit_dollars.unwrap().get())
    });
    assert_eq!(
        rows.collect::<Vec<_>>(),
        [
            ("Free", None, 100),
            ("Tier 1", Some((5, 0)), 100),
            ("Tier 2", Some((50, 7)), 500),
            ("Tier 3", Some((100, 7)), 1_000),
            ("Tier 4", Some((250, 14)), 5_000),
            ("Tier 5", Some((1_000, 30)), 200_000),
        ]
    );
    assert!(tiers.iter().all(|tier| tier.default_limits != Limits::default()));
}

#[test]
fn names_that_answers_carry_resolve_to_a_priced_model() {
    let catalog = built_in();
    let now = date("2026-11-22");
    for name in [
        "gpt-3.5-turbo-0125",
        "gpt-3.5-turbo-0301",
        "gpt-4.1-2025-04-14",
        "gpt-4o-2024-08-06",
        "gpt-4o-audio-preview-2024-10-01",
        "gpt-4o-audio-preview-2024-12-17",
        "gpt-4o-audio-preview-2025-06-03",
        "gpt-4o-mini-2024-07-18",
        "gpt-4o-mini-search-preview-2025-03-11",
        "gpt-4o-search-preview-2025-03-11",
        "gpt-5-2025-08-07",
        "gpt-5-mini-2025-08-07",
        "gpt-5-nano-2025-08-07",
        "gpt-5.6-sol",
        "gpt-audio-1.5",
        "gpt-audio-mini-2025-12-15",
        "o3-mini-2025-01-31",
    ] {
        let named = catalog.resolve(name).unwrap_or_else(|| panic!("{name} is unknown"));
        assert!(named.prices(now).is_some(), "{name} has no price");
        assert_eq!(named.billed_name().as_ref(), name);
    }
    assert_eq!(catalog.resolve("gpt-4o").unwrap().billed_name().as_ref(), "gpt-4o-2024-08-06");
}

/// Settings whose models and tiers lie in a folder of their own.
pub(super) fn own(files: &[(&str, &str)]) -> (tempfile::TempDir, Settings) {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings { models_dir: Some(folder.path().join("models")), ..Settings::default() };
    fs::create_dir(folder.path().join("models")).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
        if *name == "tiers.toml" {
            settings.tiers_file = Some(folder.path().join(name));
        }
    }
    (folder, settings)
}

pub(super) fn problems(files: &[(&str, &str)]) -> Vec<String> {
    let (folder, settings) = own(files);
    let prefix = format!("{}/", folder.path().display());
    load_catalog(&settings).unwrap_err().to_string().lines().map(|line| line.replace(&prefix, "")).collect()
}

const HEAD: &str = "description = \"d\"\ncreated = 1\nowned_by = \"o\"\nendpoints = [\"/v1/responses\"]\n";

#[test]
fn an_own_page_replaces_the_built_in_one_and_others_are_added() {
    let price = "[[prices]]\nfrom = \"2020-01-01\"\nstandard = { input_text = \"7\" }\n";
    let seed = format!("id = {SEED:?}\n{HEAD}{price}");
    let (_folder, settings) = own(&[("models/a.toml", &seed), ("models/b.toml", &format!("id = \"mine\"\n{HEAD}"))]);
    let catalog = load_catalog(&settings).unwrap();
    assert_eq!(catalog.models().len(), built_in().models().len() + 1);
    assert_eq!(listed(&in_force(&catalog, SEED).unwrap().standard), [("input_text", 7_000_000)]);
    assert!(catalog.resolve("gpt-4o-mini-audio-preview-2024-12-17").is_none());
    assert_eq!(catalog.resolve("mine").unwrap().model.limit_group.as_ref(), "mine");
}

#[test]
fn every_problem_of_every_page_is_listed_with_file_and_line() {
    let page = format!(
        "id = \"a b\"\n{HEAD}shutdown_date = \"soon\"\n[modalities]\ninput = [\"txt\"]\n[[prices]]\nfrom = \"2024-13-01\"\n\
         [prices.standard]\ninput_txt = \"1\"\noutput_text = \"0.0000001\"\ninput_audio = \"1,5\"\ninput_text = \"1\"\n"
    );
    let float = format!("id = \"f\"\n{HEAD}[[prices]]\nfrom = \"2024-01-01\"\n[prices.standard]\ninput_text = 0.15\n");
    let extra = format!("id = \"e\"\nprize = 1\nlimit_group = 2\n{HEAD}[futures]\nx = 1\n");
    let mut found = problems(&[
        ("models/a.toml", &page),
        ("models/b.toml", &float),
        ("models/c.toml", &extra),
        ("models/d.txt", ""),
    ]);
    found.sort();
    let starts = [
        "models/a.toml:10: \"2024-13-01\" is no date",
        "models/a.toml:12: input_txt is no line item (did you mean \"input_text\"?)",
        "models/a.toml:13: output_text = \"0.0000001\": at most six digits",
        "models/a.toml:14: input_audio = \"1,5\": expected a decimal number of dollars",
        "models/a.toml:1: \"a b\" is no name",
        "models/a.toml:6: \"soon\" is no date",
        "models/a.toml:8: \"txt\" is no modality",
        "models/b.toml:9: invalid type: floating point `0.15`, expected a string",
        "models/c.toml:2: unknown field `prize`",
        "models/c.toml:3: invalid type: integer `2`, expected a string",
        "models/c.toml:8: unknown field `futures`",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (line, start) in found.iter().zip(starts) {
        assert!(line.starts_with(start), "{line} should start with {start}");
    }
}

#[test]
fn prices_that_contradict_each_other_are_refused() {
    let twice = "[[prices]]\nfrom = \"2024-01-01\"\nstandard = { input_text = \"1\" }\n".repeat(2);
    let empty = "[[prices]]\nfrom = \"2025-01-01\"\nlong_context_threshold_input_tokens = 5\nstandard = {}\n";
    let found = problems(&[("models/a.toml", &format!("id = \"a\"\n{HEAD}{twice}{empty}"))]);
    assert_eq!(
        found,
        [
            "models/a.toml:10: two prices start on 2024-01-01",
            "models/a.toml:13: long_context and long_context_threshold_input_tokens need each other",
            "models/a.toml:13: the standard prices are missing; a model without token prices has no [[prices]] at all",
        ]
    );
}

#[test]
fn names_used_twice_and_tiers_that_do_not_exist_name_their_files() {
    let first = format!("id = \"x\"\n{HEAD}[limits.gold]\n");
    let second = format!("id = \"x\"\n{HEAD}");
    let found = problems(&[("models/a.toml", &first), ("models/b.toml", &second)]);
    assert_eq!(
        found,
        [
            "models/a.toml, models/b.toml: model \"x\" has limits for \"gold\", which is no tier",
            "models/a.toml, models/b.toml: the model name \"x\" is used twice",
        ]
    );
}

#[test]
fn a_dash_is_no_limit_in_tiers_and_on_pages() {
    let tier = "[[tiers]]\nid = \"tier1\"\nname = \"n\"\n[tiers.default_limits]\nrequests_per_minute = \"-\"\ntokens_per_day = 9\n";
    let page = format!("id = \"x\"\n{HEAD}[limits.tier1]\ntokens_per_day = 5_000\nbatch_queue_tokens = \"-\"\n");
    let (_folder, settings) = own(&[("tiers.toml", tier), ("models/x.toml", &page)]);
    let catalog = load_catalog(&settings).unwrap();
    let limits = |name| catalog.limits(&TierId::from("tier1"), catalog.resolve(name).map(|it| it.model.as_ref()));
    let daily = |tokens| Limits { tokens_per_day: std::num::NonZeroU32::new(tokens), ..Limits::default() };
    assert_eq!((limits("x"), limits("unlisted")), (daily(5_000), daily(9)));
    for (wrong, told) in [("\"none\"", "string \"none\""), ("0", "integer `0`"), ("1.5", "floating point `1.5`")] {
        let found = problems(&[("tiers.toml", &tier.replace("\"-\"", wrong))]);
        assert!(found.len() == 1 && found[0].starts_with("tiers.toml:5: ") && found[0].contains(told), "{found:?}");
    }
}

// === A second opinion: the price list the pages were made from, where it lies beside this repository ===

#[derive(Deserialize)]
struct PriceList {
    models: Vec<ListedModel>,
}

type ListedRates = BTreeMap<String, Box<RawValue>>;

#[derive(Deserialize)]
struct ListedModel {
    id: String,
    prices_per_1m_tokens: ListedRates,
    #[serde(default)]
    prices_per_1m_tokens_variants: BTreeMap<String, ListedRates>,
    #[serde(default)]
    snapshots: Vec<ListedSnapshot>,
    context_window: Option<u64>,
    max_output_tokens: Option<u64>,
    deprecation_date: Option<String>,
}

#[derive(Deserialize)]
struct ListedSnapshot {
    id: String,
    prices_per_1m_tokens: Option<ListedRates>,
    deprecation_date: Option<String>,
}

fn listed(rates: &Rates) -> Vec<(&'static str, i64)> {
    LineItem::ALL.into_iter().filter_map(|item| Some((item.name(), rates.get(item)?.pico()))).collect()
}

fn expected(rates: Option<&ListedRates>) -> Vec<(&'static str, i64)> {
    let ours = |name: &str| match name {
        "input_text_cached" => LineItem::InputCachedText,
        "input_text_cache_write" => LineItem::InputCacheWriteText,
        "input_audio_cached" => LineItem::InputCachedAudio,
        "input_image_cached" => LineItem::InputCachedImage,
        other => LineItem::ALL.into_iter().find(|item| item.name() == other).unwrap(),
    };
    let prices = rates.into_iter().flatten().filter(|(name, _)| *name != "threshold_input_tokens");
    let mut prices: Vec<_> =
        prices.map(|(name, dollars)| (ours(name), Money::per_million(dollars.get()).unwrap().pico())).collect();
    prices.sort_unstable();
    prices.into_iter().map(|(item, pico)| (item.name(), pico)).collect()
}

fn in_force(catalog: &Catalog, name: &str) -> Option<Prices> {
    let named = catalog.resolve(name).unwrap_or_else(|| panic!("{name} is missing"));
    named.prices(date("2026-11-22")).map(|prices| Prices::clone(prices))
}

fn compare_model(catalog: &Catalog, model: &ListedModel) {
    let id = &model.id;
    let prices = in_force(catalog, id).unwrap_or_default();
    assert_eq!(listed(&prices.standard), expected(Some(&model.prices_per_1m_tokens)), "{id}");
    let variants = &model.prices_per_1m_tokens_variants;
    for (variant, rates) in [("batch", prices.batch), ("flex", prices.flex), ("priority", prices.priority)] {
        assert_eq!(listed(&rates), expected(variants.get(variant)), "{id} {variant}");
    }
    let long = variants.get("long_context");
    assert_eq!(prices.long_context.map(|(_, rates)| listed(&rates)), long.map(|rates| expected(Some(rates))), "{id}");
    let threshold = long.map(|rates| rates["threshold_input_tokens"].get().parse().unwrap());
    assert_eq!(prices.long_context.map(|(threshold, _)| threshold), threshold, "{id}");

    for snapshot in &model.snapshots {
        let own = snapshot.prices_per_1m_tokens.as_ref().unwrap_or(&model.prices_per_1m_tokens);
        let ours = in_force(catalog, &snapshot.id).map(|prices| listed(&prices.standard)).unwrap_or_default();
        assert_eq!(ours, expected(Some(own)), "{}", snapshot.id);
        let named = catalog.resolve(&snapshot.id).unwrap();
        assert_eq!(named.snapshot.unwrap().shutdown_date, snapshot.deprecation_date, "{}", snapshot.id);
    }
    let named = catalog.resolve(id).unwrap();
    assert_eq!(named.model.context_window_tokens, model.context_window, "{id}");
    assert_eq!(named.model.max_output_tokens, model.max_output_tokens, "{id}");
    if named.snapshot.is_none() && id != SEED {
        assert_eq!(named.model.shutdown_date, model.deprecation_date, "{id}");
    }
}

#[test]
fn every_price_equals_the_price_list_and_no_price_is_ours_alone() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/prices.json");
    let Ok(text) = fs::read_to_string(path) else { return };
    let list: PriceList = serde_json::from_str(&text).unwrap();
    let catalog = built_in();
    for model in &list.models {
        compare_model(&catalog, model);
    }
    let snapshots =
        |model: &ListedModel| model.snapshots.iter().map(|snapshot| snapshot.id.clone()).collect::<Vec<_>>();
    let theirs = list.models.iter().flat_map(|model| [vec![model.id.clone()], snapshots(model)].concat());
    let ours = catalog.models().iter().flat_map(|model| catalog.names_of(&model.id)).map(|name| name.to_string());
    assert_eq!(ours.collect::<BTreeSet<_>>(), theirs.collect::<BTreeSet<_>>());
}
