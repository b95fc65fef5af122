//! A query string, with lists in each spelling that clients use: `a[]=x&a[]=y`, `a=x&a=y`, `a=x,y`.

use std::collections::BTreeSet;

use super::super::error::ApiError;

pub(in crate::openai) struct Query(Vec<(String, String)>);

impl Query {
    pub(in crate::openai) fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// Fails for a parameter with another name: where filters are our own, one that is misspelt must not be none.
    pub(in crate::openai) fn only(&self, names: &[&str]) -> Result<(), ApiError> {
        match self.0.iter().find(|(key, _)| !names.contains(&list_name(key))) {
            Some((key, _)) => Err(ApiError::unknown_parameter(key)),
            None => Ok(()),
        }
    }

    /// `None` when the parameter is not there.
    pub(in crate::openai) fn list(&self, name: &'static str) -> Result<Option<BTreeSet<String>>, ApiError> {
        let given = self.0.iter().filter(|(key, _)| list_name(key) == name);
        let values: Vec<&str> = given.flat_map(|(_, value)| value.split(',')).collect();
        // An unset variable in somebody's script must not turn a filter into none.
        if let Some(index) = values.iter().position(|value| value.is_empty()) {
            return Err(empty_string(name, index));
        }
        let values: BTreeSet<String> = values.into_iter().map(str::to_owned).collect();
        Ok((!values.is_empty()).then_some(values))
    }

    pub(in crate::openai) fn integer(&self, name: &'static str, min: u64, max: u64) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.one(name, "an integer")? else { return Ok(None) };
        let value: i128 = text.parse().map_err(|_| wrong_type(name, "an integer", "a string"))?;
        match u64::try_from(value) {
            Ok(value) if value > max => Err(out_of_range(name, "above maximum", "<=", max, text)),
            Ok(value) if value >= min => Ok(Some(value)),
            Err(_) if value > 0 => Err(out_of_range(name, "above maximum", "<=", max, text)),
            _ => Err(out_of_range(name, "below minimum", ">=", min, text)),
        }
    }

    pub(in crate::openai) fn boolean(&self, name: &'static str) -> Result<Option<bool>, ApiError> {
        match self.one(name, "a boolean")? {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(wrong_type(name, "a boolean", "a string")),
        }
    }

    pub(in crate::openai) fn text(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        self.one(name, "a string")
    }

    fn one(&self, name: &'static str, expected: &str) -> Result<Option<&str>, ApiError> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(wrong_type(name, expected, "an array")),
        }
    }
}

/// `a` of `a[]` and of `a[0]`, which some clients write; any other name is its own.
fn list_name(key: &str) -> &str {
    let bracketed = key.strip_suffix(']').and_then(|key| key.split_once('['));
    match bracketed {
        Some((name, index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => key,
    }
}

/// The one of `all` called `value`.
pub(in crate::openai) fn choice<T: Copy>(
    param: &'static str,
    value: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, ApiError> {
    let found = all.iter().copied().find(|it| name(*it) == value);
    found.ok_or_else(|| {
        let names: Vec<String> = all.iter().map(|it| format!("'{}'", name(*it))).collect();
        let message = format!("Invalid value: '{value}'. Supported values are: {}.", enumeration(&names));
        ApiError::invalid(message, Some(param.into()), Some("invalid_value".into()))
    })
}

/// Some of `all`, by name; `None` when the parameter is not there.
pub(in crate::openai) fn choices<T: Copy + Ord>(
    query: &Query,
    param: &'static str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<Option<BTreeSet<T>>, ApiError> {
    let names = query.list(param)?;
    names.map(|names| names.iter().map(|it| choice(param, it, all, &name)).collect()).transpose()
}

/// `a`, `a and b`, `a, b, and c`.
pub(in crate::openai) fn enumeration(names: &[String]) -> String {
    match names {
        [first, second] => format!("{first} and {second}"),
        [first @ .., last] if !first.is_empty() => format!("{}, and {last}", first.join(", ")),
        _ => names.concat(),
    }
}

fn wrong_type(param: &'static str, expected: &str, got: &str) -> ApiError {
    let message = format!("Invalid type for '{param}': expected {expected}, but got {got} instead.");
    ApiError::invalid(message, Some(param.into()), Some("invalid_type".into()))
}

fn out_of_range(param: &'static str, side: &str, sign: &str, bound: u64, got: &str) -> ApiError {
    let message =
        format!("Invalid '{param}': integer {side} value. Expected a value {sign} {bound}, but got {got} instead.");
    let code = if sign == ">=" { "integer_below_min_value" } else { "integer_above_max_value" };
    ApiError::invalid(message, Some(param.into()), Some(code.into()))
}

fn empty_string(param: &'static str, index: usize) -> ApiError {
    let message = format!(
        "Invalid '{param}[{index}]': empty string. Expected a string with minimum length 1, but got an empty string \
         instead."
    );
    ApiError::invalid(message, Some(param.into()), Some("empty_string".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<Vec<String>, String> {
        let list = Query::parse(text).list("group_by").map_err(|error| error.message.into_owned())?;
        Ok(list.unwrap_or_default().into_iter().collect())
    }

    #[test]
    fn lists_read_the_same_in_every_spelling() {
        for text in [
            "group_by[]=b&group_by[]=a",
            "group_by%5B%5D=a&group_by%5B%5D=b",
            "group_by=a&group_by=b",
            "group_by=a,b",
            "group_by=b%2Ca&x=1",
            "group_by[0]=a&group_by[1]=b",
            "group_by=a&group_by[]=b,a",
            "%67roup_by=%61,b",
        ] {
            assert_eq!(list(text).unwrap(), ["a", "b"], "{text}");
        }
        assert_eq!(list("group_bys=a&group_by[x]=b&group_by]=c").unwrap(), [""; 0]);
        assert_eq!(list("group_by=a+b%20c%zz").unwrap(), ["a b c%zz"]);
    }

    #[test]
    fn an_empty_element_is_refused_rather_than_ignored() {
        for text in ["group_by=", "group_by", "group_by[]="] {
            assert!(list(text).unwrap_err().starts_with("Invalid 'group_by[0]': empty string."), "{text}");
        }
        assert!(list("group_by=a,,b").unwrap_err().starts_with("Invalid 'group_by[1]'"));
    }

    #[test]
    fn integers_outside_their_range_name_the_bound() {
        let read = |text: &str| {
            let value = Query::parse(text).integer("limit", 1, 31);
            value.map_err(|error| (error.message.into_owned(), error.code.unwrap().into_owned()))
        };
        assert_eq!((read(""), read("limit=1"), read("limit=31")), (Ok(None), Ok(Some(1)), Ok(Some(31))));
        let below = "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got -2 instead.";
        assert_eq!(read("limit=-2"), Err((below.to_owned(), "integer_below_min_value".to_owned())));
        let above = "Invalid 'limit': integer above maximum value. Expected a value <= 31, but got 32 instead.";
        assert_eq!(read("limit=32"), Err((above.to_owned(), "integer_above_max_value".to_owned())));
        assert_eq!(read("limit=99999999999999999999").unwrap_err().1, "integer_above_max_value");
        for text in ["limit=", "limit=x", "limit=1.5", "limit=1e3", "limit= 1"] {
            let message = "Invalid type for 'limit': expected an integer, but got a string instead.";
            assert_eq!(read(text), Err((message.to_owned(), "invalid_type".to_owned())), "{text}");
        }
        let twice = "Invalid type for 'limit': expected an integer, but got an array instead.";
        assert_eq!(read("limit=1&limit=2").unwrap_err().0, twice);
    }

    #[test]
    fn booleans_are_true_or_false() {
        let read = |text: &str| Query::parse(text).boolean("batch").map_err(|error| error.message.into_owned());
        assert_eq!((read("batch=true"), read("batch=false"), read("a=b")), (Ok(Some(true)), Ok(Some(false)), Ok(None)));
        assert!(read("batch=1").unwrap_err().starts_with("Invalid type for 'batch': expected a boolean"));
    }

    #[test]
    fn supported_values_are_listed_as_a_sentence() {
        let message = |all: &[&'static str]| choice("p", "x", all, |it| it).unwrap_err().message.into_owned();
        assert_eq!(message(&["1d"]), "Invalid value: 'x'. Supported values are: '1d'.");
        assert_eq!(message(&["a", "b"]), "Invalid value: 'x'. Supported values are: 'a' and 'b'.");
        assert_eq!(message(&["a", "b", "c"]), "Invalid value: 'x'. Supported values are: 'a', 'b', and 'c'.");
    }
}
