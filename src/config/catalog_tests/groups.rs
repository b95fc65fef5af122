use super::*;

#[test]
fn limits_that_differ_within_a_limit_group_name_both_files() {
    let page = |id: &str, requests: u32| {
        format!("id = {id:?}\nlimit_group = \"g\"\n{HEAD}[limits.tier1]\nrequests_per_minute = {requests}\n")
    };
    let (first, other) = (page("a", 5), page("b", 6));
    let found = problems(&[("models/a.toml", &first), ("models/b.toml", &other), ("models/c.toml", &page("c", 5))]);
    let expected = "models/a.toml, models/b.toml: models \"a\" and \"b\" of the limit group \"g\" have different limits for \"tier1\"";
    assert_eq!(found, [expected]);
}
