//! Two books of the same traffic, ours and a provider's, compared day by day, model by model and line item by line item.

use std::collections::{BTreeMap, BTreeSet};

use super::money::Total;

/// What one side's reports say. Days by the Unix second at which they start, in UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Counts by day and model, of those that the side tells.
    pub counts: BTreeMap<(u64, String), BTreeMap<Count, u64>>,
    /// Dollars by day and line item (`gpt-4o-mini-2024-07-18, input`).
    pub costs: BTreeMap<(u64, String), Total>,
}

/// What is counted, in the words of line items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    pub words: &'static str,
    /// A sum of others: compared only where one side does not tell those.
    pub is_total: bool,
}

/// How far two figures may be apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// Of the larger of the two, in millionths.
    Share(u32),
    /// An amount of money; it forgives no tokens.
    Dollars(Total),
}

/// Ours and theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair<T> {
    pub ours: T,
    pub theirs: T,
}

/// The figures of one day and line item; a model's requests count as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub quantity: Option<Pair<u64>>,
    pub cost: Option<Pair<Total>>,
    pub quantity_differs: bool,
    pub cost_differs: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub lines: BTreeMap<(u64, String), Line>,
    pub cost: Pair<Total>,
    /// Of all lines together. Lines that may each be a little apart can be too far apart in sum.
    pub cost_differs: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sum of the reports is too large")]
pub struct Overflow;

impl Tolerance {
    /// `0.5%` or `$0.01`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "expected a share (0.5%) or an amount ($0.01)".to_owned();
        if let Some(dollars) = text.strip_prefix('$') {
            let amount = Total::from_decimal(dollars).ok().filter(|amount| amount.pico() >= 0);
            return amount.map(Self::Dollars).ok_or_else(wrong);
        }
        let percent = text.strip_suffix('%').ok_or_else(wrong)?;
        // A percent is ten thousand millionths; read as dollars it is a million million units.
        let pico = Total::from_decimal(percent).map_err(|_| wrong())?.pico();
        let millionths = pico.checked_div(100_000_000).filter(|_| pico % 100_000_000 == 0).ok_or_else(wrong)?;
        let share = u32::try_from(millionths).ok().filter(|share| *share <= 1_000_000);
        share.map(Self::Share).ok_or_else(wrong)
    }

    fn forgives(self, figures: Pair<i128>, is_money: bool) -> bool {
        let Some(apart) = figures.ours.checked_sub(figures.theirs).and_then(i128::checked_abs) else { return false };
        match self {
            Self::Dollars(amount) => is_money && apart <= amount.pico(),
            Self::Share(millionths) => {
                let larger = figures.ours.unsigned_abs().max(figures.theirs.unsigned_abs());
                let (apart, allowed) =
                    (apart.unsigned_abs().checked_mul(1_000_000), larger.checked_mul(millionths.into()));
                apart.zip(allowed).is_some_and(|(apart, allowed)| apart <= allowed)
            }
        }
    }
}

impl Books {
    /// Line by line: a figure differs when it is beyond every tolerance. What one side has no line for counts as zero.
    pub fn compare(&self, theirs: &Self, tolerances: &[Tolerance]) -> Result<Comparison, Overflow> {
        let differs = |ours: i128, theirs: i128, is_money: bool| {
            let figures = Pair { ours, theirs };
            ours != theirs && !tolerances.iter().any(|tolerance| tolerance.forgives(figures, is_money))
        };
        let mut comparison = Comparison::default();
        for place in self.counts.keys().chain(theirs.counts.keys()).collect::<BTreeSet<_>>() {
            let (day_s, model) = place;
            let pairs = pairs(self.counts.get(place), theirs.counts.get(place));
            for (count, pair) in pairs.filter(|(_, pair)| *pair != Pair::default()) {
                let line = comparison.lines.entry((*day_s, format!("{model}, {}", count.words))).or_default();
                line.quantity = Some(pair);
                line.quantity_differs = differs(pair.ours.into(), pair.theirs.into(), false);
            }
        }
        for place in self.costs.keys().chain(theirs.costs.keys()).collect::<BTreeSet<_>>() {
            let of = |side: &Self| side.costs.get(place).copied().unwrap_or_default();
            let pair = Pair { ours: of(self), theirs: of(theirs) };
            let line = comparison.lines.entry(place.clone()).or_default();
            line.cost = Some(pair);
            line.cost_differs = differs(pair.ours.pico(), pair.theirs.pico(), true);
            let sum = |total: Total, amount| total.checked_add(amount).map_err(|_| Overflow);
            comparison.cost.ours = sum(comparison.cost.ours, pair.ours)?;
            comparison.cost.theirs = sum(comparison.cost.theirs, pair.theirs)?;
        }
        comparison.cost_differs = differs(comparison.cost.ours.pico(), comparison.cost.theirs.pico(), true);
        Ok(comparison)
    }
}

/// The counts that both sides tell; a side without the model has used nothing of it.
fn pairs(
    ours: Option<&BTreeMap<Count, u64>>,
    theirs: Option<&BTreeMap<Count, u64>>,
) -> impl Iterator<Item = (Count, Pair<u64>)> {
    let told =
        |side: Option<&BTreeMap<Count, u64>>, count: &Count| side.map_or(Some(0), |side| side.get(count).copied());
    let counts: BTreeSet<Count> = ours.into_iter().chain(theirs).flat_map(BTreeMap::keys).copied().collect();
    let mut details = counts.iter().filter(|count| !count.is_total && **count != Count::REQUESTS).peekable();
    let in_detail =
        details.peek().is_some() && details.all(|count| told(ours, count).and(told(theirs, count)).is_some());
    let pair = |count: Count| Some((count, Pair { ours: told(ours, &count)?, theirs: told(theirs, &count)? }));
    let both: Vec<_> = counts.into_iter().filter(|count| !(in_detail && count.is_total)).filter_map(pair).collect();
    both.into_iter()
}

impl Count {
    pub const REQUESTS: Self = Self::detail("requests");

    pub const fn detail(words: &'static str) -> Self {
        Self { words, is_total: false }
    }

    pub const fn total(words: &'static str) -> Self {
        Self { words, is_total: true }
    }
}

impl Comparison {
    pub fn differences(&self) -> impl Iterator<Item = (&(u64, String), &Line)> {
        self.lines.iter().filter(|(_, line)| line.quantity_differs || line.cost_differs)
    }

    /// Whether both books say the same, as far as the tolerance goes.
    pub fn agrees(&self) -> bool {
        self.differences().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: Count = Count::detail("input");

    fn books(counts: &[(Count, u64)], costs: &[(&str, i128)]) -> Books {
        let place = |name: &str| (86_400, name.to_owned());
        let counts: BTreeMap<_, _> = counts.iter().copied().collect();
        Books {
            counts: if counts.is_empty() { BTreeMap::new() } else { BTreeMap::from([(place("m"), counts)]) },
            costs: costs.iter().map(|(name, pico)| (place(name), Total::from_pico(*pico))).collect(),
        }
    }

    fn differing(ours: &Books, theirs: &Books, tolerances: &[Tolerance]) -> Vec<String> {
        let comparison = ours.compare(theirs, tolerances).unwrap();
        assert_eq!(comparison.agrees(), comparison.differences().next().is_none());
        comparison.differences().map(|((_, name), _)| name.clone()).collect()
    }

    #[test]
    fn the_sum_of_all_costs_is_held_to_the_tolerance_too() {
        let ours = books(&[], &[("m, input", 1_000), ("m, output", 1_000)]);
        let theirs = books(&[], &[("m, input", 1_001), ("m, output", 1_001)]);
        let differs = |tolerances: &[Tolerance]| {
            let comparison = ours.compare(&theirs, tolerances).unwrap();
            (comparison.agrees(), comparison.cost_differs)
        };
        assert_eq!(differs(&[]), (false, true));
        assert_eq!(differs(&[Tolerance::Share(1_000)]), (true, false));
        assert_eq!(differs(&[Tolerance::Dollars(Total::from_pico(1))]), (true, true));
    }

    #[test]
    fn books_that_say_the_same_agree() {
        let same = books(&[(INPUT, 5), (Count::REQUESTS, 1)], &[("m, input", 7)]);
        assert!(differing(&same, &same, &[]).is_empty());
        assert_eq!(
            same.compare(&same, &[]).unwrap().cost,
            Pair { ours: Total::from_pico(7), theirs: Total::from_pico(7) }
        );
        // A line of nothing is as good as none.
        assert!(differing(&books(&[(INPUT, 0)], &[("m, input", 0)]), &Books::default(), &[]).is_empty());
    }

    #[test]
    fn what_only_one_side_has_is_a_difference() {
        let (some, none) = (books(&[(INPUT, 5)], &[("m, output", 7)]), Books::default());
        for (ours, theirs) in [(&some, &none), (&none, &some)] {
            assert_eq!(differing(ours, theirs, &[]), ["m, input", "m, output"]);
        }
    }

    #[test]
    fn a_sum_is_compared_only_where_its_parts_are_not_told() {
        let sum = Count::total("all input");
        let ours = books(&[(INPUT, 5), (sum, 9), (Count::REQUESTS, 1)], &[]);
        assert!(differing(&ours, &books(&[(INPUT, 5), (sum, 8)], &[]), &[]).is_empty());
        assert_eq!(differing(&ours, &books(&[(sum, 8), (Count::REQUESTS, 1)], &[]), &[]), ["m, all input"]);
        // They tell audio apart, and text only as a part of the sum.
        let audio = Count::detail("audio input");
        let ours = books(&[(INPUT, 5), (audio, 4), (sum, 9)], &[]);
        assert_eq!(differing(&ours, &books(&[(audio, 4), (sum, 8)], &[]), &[]), ["m, all input"]);
        assert_eq!(differing(&ours, &Books::default(), &[]), ["m, audio input", "m, input"]);
    }

    #[test]
    fn a_difference_within_any_tolerance_is_none() {
        let tolerances = |texts: &[&str]| texts.iter().map(|text| Tolerance::parse(text).unwrap()).collect::<Vec<_>>();
        let (ours, theirs) = (books(&[(INPUT, 995)], &[("x", 1_000_000_000)]), books(&[(INPUT, 1_000)], &[("x", 0)]));
        for (texts, expected) in [
            (&["0.5%"][..], &["x"][..]),
            (&["0.4999%"], &["m, input", "x"]),
            (&["$0.001"], &["m, input"]),
            (&["$0.000999"], &["m, input", "x"]),
            (&["0.5%", "$0.001"], &[]),
            (&["100%"], &[]),
        ] {
            assert_eq!(differing(&ours, &theirs, &tolerances(texts)), expected, "{texts:?}");
        }
    }

    #[test]
    fn tolerances_are_shares_or_dollars() {
        assert_eq!(Tolerance::parse("0.5%"), Ok(Tolerance::Share(5_000)));
        assert_eq!(Tolerance::parse("0%"), Ok(Tolerance::Share(0)));
        assert_eq!(Tolerance::parse("$0.01"), Ok(Tolerance::Dollars(Total::from_pico(10_000_000_000))));
        for text in ["", "%", "$", "5", "-1%", "$-1", "101%", "0.00001%", "0.5 %", "1e", "€1"] {
            assert!(Tolerance::parse(text).is_err(), "{text}");
        }
    }
}
