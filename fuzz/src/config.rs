//! The files that an operator writes: taken, or answered with what is wrong and where.

use std::sync::LazyLock;

use tollgate::{
    config::{Problems, Settings, load_catalog, text},
    domain::catalog::Catalog,
};

use super::choice;

static BUILT_IN: LazyLock<Catalog> =
    LazyLock::new(|| load_catalog(&Settings::default()).expect("the built-in pages can be read"));

pub fn config(data: &[u8]) {
    let Some((file, text)) = choice(data) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match file % 4 {
        0 => settings(text),
        1 => model_page(text),
        2 => match text::tiers(text, None) {
            Ok(tiers) => {
                assert!(!tiers.is_empty());
                let _ = Catalog::new(Vec::new(), tiers);
            }
            Err(problems) => are_told(&problems, text),
        },
        _ => match text::limits(text, &BUILT_IN) {
            Ok(limits) => {
                for model in BUILT_IN.models() {
                    limits.limits(Some(model));
                }
            }
            Err(problems) => are_told(&problems, text),
        },
    }
}

fn settings(text: &str) {
    // A secret may be named by its file: what is made up here must not open any.
    if text.replace("tiers_file", "").contains("_file") || text.contains('\\') {
        return;
    }
    match text::settings(text) {
        Ok(settings) => {
            let shown = format!("{:?}", settings.shown());
            for secret in [&settings.admin_key, &settings.pepper].into_iter().flatten() {
                assert!(!shown.contains(secret.reveal()) && !format!("{settings:?}").contains(secret.reveal()));
            }
        }
        Err(problems) => are_told(&problems, text),
    }
}

fn model_page(text: &str) {
    match text::model_page(text) {
        Ok(model) => {
            for prices in &model.prices {
                assert!(!prices.is_empty());
            }
            assert!(model.prices.is_sorted_by(|one, next| one.from < next.from));
            let _ = Catalog::new(vec![model], BUILT_IN.tiers().cloned().collect());
        }
        Err(problems) => are_told(&problems, text),
    }
}

/// Something is said, and every place that is named exists.
fn are_told(problems: &Problems, text: &str) {
    assert!(!problems.is_empty(), "nobody is told what is wrong");
    assert!(!problems.to_string().is_empty());
    let lines = text.matches('\n').count() + 1;
    for problem in &problems.0 {
        let line = problem.at.strip_prefix("text.toml:").and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
        assert!(line.is_none_or(|line| (1..=lines).contains(&line)), "{problem} of {lines} lines");
    }
}
