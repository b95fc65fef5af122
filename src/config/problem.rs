//! What is wrong with the configuration: every problem, each with its place, so that a person mends them in one go.

use std::fmt;

use serde::Serialize;

/// One thing to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `tollgate.toml:12`, `environment TOLLGATE_LISTEN`, `config/models/gpt-4o.toml:3`.
    pub at: String,
    pub message: String,
}

/// All that was found; never empty when it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub fn add(&mut self, at: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { at: at.into(), message: message.into() });
    }

    /// By file and line, as a person goes through them; the environment comes last.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.0.sort_by(|one, other| one.order().cmp(&other.order()));
        self
    }

    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self.sorted()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Problem {
    fn order(&self) -> (bool, &str, usize) {
        let place = self.at.split_once(": ").map_or(self.at.as_str(), |(place, _)| place);
        let with_line = place.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse().ok()?)));
        let (file, line) = with_line.unwrap_or((place, 0));
        (file.starts_with("environment "), file, line)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The line of a byte offset, counted from one.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// ` (did you mean "listen"?)`, or nothing when no known word is near.
pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |candidate| format!(" (did you mean {candidate:?}?)"))
}

/// The known word that `word` is probably meant to be.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (edits, candidate) = known.map(|candidate| (distance(word, candidate), candidate)).min()?;
    (edits <= 1 + word.len() / 4).then_some(candidate)
}

/// How many characters to insert, delete or replace to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (1..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let (mut diagonal, mut left) = (i, i + 1);
        for (above, to) in row.iter_mut().zip(b.chars()) {
            let replace = diagonal + usize::from(from != to);
            diagonal = *above;
            left = replace.min(diagonal + 1).min(left + 1);
            *above = left;
        }
    }
    row.last().copied().unwrap_or_else(|| a.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_word_is_answered_with_the_nearest_known_one() {
        let known = || ["listen", "admin_listen", "log_level"].into_iter();
        assert_eq!(did_you_mean("lisen", known()), " (did you mean \"listen\"?)");
        assert_eq!(did_you_mean("loglevel", known()), " (did you mean \"log_level\"?)");
        assert_eq!(did_you_mean("entirely_different", known()), "");
        assert_eq!((distance("", "abc"), distance("abc", "abc"), distance("kitten", "sitting")), (3, 0, 3));
        assert_eq!((distance("abc", ""), distance("", "")), (3, 0));
    }

    #[test]
    fn problems_are_in_the_order_of_files_and_lines() {
        let mut problems = Problems::default();
        for at in ["environment B", "b.toml:2", "a.toml:10: x", "a.toml", "a.toml:9: y", "environment A", "b.toml:1"] {
            problems.add(at, "m");
        }
        let order: Vec<_> = problems.sorted().0.into_iter().map(|problem| problem.at).collect();
        assert_eq!(
            order,
            ["a.toml", "a.toml:9: y", "a.toml:10: x", "b.toml:1", "b.toml:2", "environment A", "environment B"]
        );
    }

    #[test]
    fn lines_are_counted_from_one() {
        assert_eq!((line_at("a\nb", 0), line_at("a\nb", 2), line_at("", 9)), (1, 2, 1));
    }
}
