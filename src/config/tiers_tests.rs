//! What a file of tiers may say, and what is told of one that is wrong.

use std::{collections::BTreeMap, num::NonZeroU64};

use super::{
    Problems, Settings,
    catalog::load_catalog,
    catalog_tests::{SEED, own, problems, row},
    load,
};
use crate::domain::projects::TierId;

/// A tier with these lines beside what each needs.
fn tier(id: &str, more: &str) -> String {
    format!("[[tiers]]\nid = {id:?}\nname = \"n\"\ndefault_limits = {{}}\n{more}\n")
}

#[test]
fn own_tiers_replace_the_built_in_ones_under_any_names_and_say_where_projects_begin() {
    let default = |files: &[String]| {
        let (_folder, settings) = own(&[("tiers.toml", &files.concat())]);
        let catalog = load_catalog(&settings).unwrap();
        assert_eq!(catalog.tiers().count(), files.len());
        catalog.default_tier().as_str().to_owned()
    };
    let [hobby, tier1, launch] = ["hobby", "tier1", "launch"].map(|id| tier(id, ""));
    assert_eq!(default(&[hobby.clone(), tier("build", "default = true"), tier1.clone()]), "build");
    assert_eq!(default(&[hobby.clone(), tier("build", "default = false"), tier1]), "tier1");
    assert_eq!(default(&[hobby.clone(), tier("build", "qualification = { spent_dollars = 5 }"), launch]), "build");
    assert_eq!(problems(&[("tiers.toml", "tiers = []")]).len(), 1);
    let found = problems(&[("tiers.toml", &tier("a", "default = true").repeat(2).replacen('a', "b", 1))]);
    assert!(found.iter().any(|line| line.starts_with("tiers.toml:10: projects that name no tier")), "{found:?}");
    let (_folder, settings) = own(&[("tiers.toml", &["tier1", "build"].map(|id| tier(id, "")).concat())]);
    let catalog = load_catalog(&settings).unwrap();
    assert_eq!(row(&catalog, SEED, "tier1"), (500, 10_000, 200_000, 2_000_000));
    assert_eq!(row(&catalog, SEED, "build"), (0, 0, 0, 0));
}

#[test]
fn a_tier_says_what_it_asks_for_and_files_that_speak_of_payments_are_read() {
    let file = |qualification: &str| {
        tier("tier1", "") + &tier("build", &format!("models = [\"gpt-4o\"]\nqualification = {qualification}"))
    };
    let needed = |qualification: &str| {
        let (_folder, settings) = own(&[("tiers.toml", &file(qualification))]);
        let catalog = load_catalog(&settings).unwrap();
        let tier = catalog.tier(&TierId::from("build")).unwrap();
        assert!(tier.models.as_ref().unwrap().allows("gpt-4o-2024-08-06", Some("gpt-4o")));
        tier.qualification.map(|it| (it.spent_dollars, it.days_since_first_spend))
    };
    assert_eq!(needed("{ spent_dollars = 5, days_since_first_spend = 7 }"), Some((5, 7)));
    assert_eq!(needed("{ paid_dollars = 5, days_since_first_payment = 7 }"), Some((5, 7)));
    assert_eq!(needed("{ days_since_first_spend = 7 }"), Some((0, 7)));
    let found = problems(&[("tiers.toml", &file("{}"))]);
    assert!(found.len() == 1 && found[0].starts_with("tiers.toml:11: a qualification asks for"), "{found:?}");
    let free_of_charge = file("{ spent_dollars = 1 }").replace("models", "monthly_usage_limit_dollars = 0\nmodels");
    assert_eq!(problems(&[("tiers.toml", &free_of_charge)]).len(), 1);
}

#[test]
fn a_tier_allows_only_models_that_there_are_and_at_least_one() {
    let file = |models: &str| tier("build", "") + &tier("hobby", &format!("models = {models}"));
    let page = |id: &str| format!("id = {id:?}\ndescription = \"d\"\ncreated = 1\nowned_by = \"o\"\nendpoints = []\n");
    let found = problems(&[("tiers.toml", &file("[]"))]);
    assert!(found.len() == 1 && found[0].starts_with("tiers.toml:10: a tier that allows no model"), "{found:?}");
    let some = file("[\n\"gpt-4o-mini-2024-07-18\",\n\"gpt-4o-mni\",\n\"mine\"]");
    let found = problems(&[("tiers.toml", &some), ("models/mine.toml", &page("mine"))]);
    assert_eq!(found, ["tiers.toml:12: there is no model \"gpt-4o-mni\" in the catalog"]);
    // A page that is wrong is one problem, not one for each tier that has its model.
    let found = problems(&[("tiers.toml", &some), ("models/mine.toml", &page("my own"))]);
    assert!(found.len() == 1 && found[0].starts_with("models/mine.toml:1: "), "{found:?}");
    // Without prices nobody need list a model that is called.
    let (_folder, settings) = own(&[("tiers.toml", &some)]);
    let settings = Settings { allow_unpriced: true, ..settings };
    assert!(load_catalog(&settings).is_ok());
    let env = [("TOLLGATE_TIERS_FILE", settings.tiers_file.unwrap().display().to_string())];
    let mut env: BTreeMap<_, _> = env.map(|(name, value)| (name.to_owned(), value)).into();
    assert_eq!(load(None, &env).problems.0.len(), 2);
    env.insert("TOLLGATE_ALLOW_UNPRICED".to_owned(), "true".to_owned());
    assert_eq!(load(None, &env).problems, Problems::default());
}

#[test]
fn a_dash_is_no_monthly_usage_limit() {
    let file = |limit: &str| tier("build", &format!("monthly_usage_limit_dollars = {limit}"));
    let read = |limit: &str| {
        let (_folder, settings) = own(&[("tiers.toml", &file(limit))]);
        load_catalog(&settings).unwrap().tiers().next().unwrap().monthly_usage_limit_dollars.map(NonZeroU64::get)
    };
    assert_eq!((read("\"-\""), read("5_000")), (None, Some(5_000)));
    for (wrong, told) in [("\"none\"", "string \"none\""), ("0", "integer `0`"), ("-1", "integer `-1`")] {
        let found = problems(&[("tiers.toml", &file(wrong))]);
        assert!(found.len() == 1 && found[0].starts_with("tiers.toml:5: ") && found[0].contains(told), "{found:?}");
    }
}
