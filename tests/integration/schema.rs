//! Whether a JSON value is what an `OpenAPI` document says, as far as the schemas of the organization API go. The unit
//! tests of the reports use it too.

use std::path::Path;

use serde_json::{Map, Value};

/// An `OpenAPI` document.
pub(crate) struct Specification(pub(crate) Value);

impl Specification {
    /// `OpenAI`'s own, which lies beside the repository on some machines.
    pub(crate) fn of_openai() -> Option<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/openapi/gateway-subset.json");
        Some(Self(serde_json::from_slice(&std::fs::read(path).ok()?).unwrap()))
    }

    /// Method, path and the schema of a successful answer, for every operation on a path that starts with `prefix`.
    pub(crate) fn operations(&self, prefix: &str) -> Vec<(String, String, Value)> {
        let paths = self.0["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with(prefix));
        let operation = |path: &String, method: &str, operation: &Value| {
            let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
            (method.to_uppercase(), path.clone(), schema.clone())
        };
        let methods = |item: &Value| item.as_object().unwrap().clone();
        let of_path = |(path, item): (&String, &Value)| {
            let known = methods(item).into_iter().filter(|(method, _)| ["get", "post", "delete"].contains(&&**method));
            known.map(|(method, it)| operation(path, &method, &it)).collect::<Vec<_>>()
        };
        paths.flat_map(of_path).collect()
    }

    /// What is wrong with `value`: one line per place.
    pub(crate) fn problems(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        self.check(schema, value, "$", &mut problems);
        problems
    }

    /// By the name of a schema.
    pub(crate) fn problems_of(&self, name: &str, value: &Value) -> Vec<String> {
        self.problems(&self.0["components"]["schemas"][name], value)
    }

    fn check(&self, schema: &Value, value: &Value, place: &str, problems: &mut Vec<String>) {
        let Value::Object(schema) = schema else {
            problems.push(format!("{place}: there is no schema"));
            return;
        };
        if let Some(reference) = schema.get("$ref") {
            let pointer = reference.as_str().unwrap().trim_start_matches('#');
            return self.check(self.0.pointer(pointer).unwrap_or(&Value::Null), value, place, problems);
        }
        if value.is_null() && schema.get("nullable") == Some(&Value::Bool(true)) {
            return;
        }
        for part in listed(schema, "allOf") {
            self.check(part, value, place, problems);
        }
        for (word, at_most) in [("anyOf", usize::MAX), ("oneOf", 1)] {
            let parts = listed(schema, word);
            let fitting = parts.iter().filter(|part| self.problems(part, value).is_empty()).count();
            if schema.contains_key(word) && (fitting == 0 || fitting > at_most) {
                problems.push(format!("{place}: fits {fitting} of {word}: {value}"));
            }
        }
        if let Some(expected) = schema.get("type").filter(|expected| !is_of(expected, value)) {
            problems.push(format!("{place}: not of type {expected}: {value}"));
        }
        if schema.contains_key("enum") && !listed(schema, "enum").contains(value) {
            problems.push(format!("{place}: not one of {}: {value}", schema["enum"]));
        }
        self.check_parts(schema, value, place, problems);
    }

    fn check_parts(&self, schema: &Map<String, Value>, value: &Value, place: &str, problems: &mut Vec<String>) {
        if let (Some(items), Value::Array(values)) = (schema.get("items"), value) {
            for (index, value) in values.iter().enumerate() {
                self.check(items, value, &format!("{place}[{index}]"), problems);
            }
        }
        let Value::Object(fields) = value else { return };
        for name in listed(schema, "required").iter().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                problems.push(format!("{place}: {name} is missing"));
            }
        }
        let known = schema.get("properties").and_then(Value::as_object);
        for (name, value) in fields {
            let place = format!("{place}.{name}");
            match (known.and_then(|known| known.get(name)), schema.get("additionalProperties")) {
                (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => {
                    self.check(schema, value, &place, problems);
                }
                (None, Some(Value::Bool(false))) => problems.push(format!("{place}: is not known")),
                (None, _) => {}
            }
        }
    }
}

fn listed<'a>(schema: &'a Map<String, Value>, word: &str) -> &'a [Value] {
    schema.get(word).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_of(expected: &Value, value: &Value) -> bool {
    let name = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is not a type"),
    };
    expected.as_array().map_or_else(|| name(expected), |names| names.iter().any(name))
}

#[test]
fn what_does_not_fit_a_schema_is_found() {
    let specification = Specification(serde_json::json!({
        "paths": {"/a": {"get": {"responses": {"200": {"content": {"application/json": {"schema": {"type": "array"}}}}}}}},
        "components": {"schemas": {
            "Base": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
            "Thing": {
                "allOf": [{"$ref": "#/components/schemas/Base"}],
                "properties": {
                    "kind": {"type": "string", "enum": ["a", "b"]},
                    "count": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                    "either": {"oneOf": [{"type": "number"}, {"type": "integer"}, {"type": "boolean"}]},
                    "more": {"type": "array", "items": {"$ref": "#/components/schemas/Base"}},
                    "old": {"type": "string", "nullable": true},
                    "new": {"type": ["string", "null"]},
                    "closed": {"type": "object", "additionalProperties": false},
                    "lost": {"$ref": "#/components/schemas/Nothing"},
                },
            },
        }},
    }));
    let fits = |value: Value| specification.problems_of("Thing", &value).is_empty();
    for good in [
        r#"{"id":"x"}"#,
        r#"{"id":"x","kind":"b","count":1,"either":1.5,"more":[{"id":"y"}],"old":null,"new":null,"closed":{},"other":1}"#,
        r#"{"id":"x","count":null,"either":true,"more":[],"old":"o","new":"n"}"#,
    ] {
        assert!(fits(serde_json::from_str(good).unwrap()), "{good}");
    }
    for bad in [
        "{}",
        "[]",
        r#"{"id":null}"#,
        r#"{"id":"x","kind":"c"}"#,
        r#"{"id":"x","count":1.5}"#,
        r#"{"id":"x","either":1}"#,
        r#"{"id":"x","either":"1"}"#,
        r#"{"id":"x","more":[{"id":"y"},{}]}"#,
        r#"{"id":"x","old":1}"#,
        r#"{"id":"x","new":1}"#,
        r#"{"id":"x","closed":{"y":1}}"#,
        r#"{"id":"x","lost":1}"#,
    ] {
        assert!(!fits(serde_json::from_str(bad).unwrap()), "{bad}");
    }
    let list = serde_json::json!({"type": "array"});
    assert_eq!(specification.operations("/"), [("GET".to_owned(), "/a".to_owned(), list)]);
}
