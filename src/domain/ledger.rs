//! What the journal and the ledger keep of a request: that it was admitted, and how it ended. Never its content.

use std::{num::NonZeroU32, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    ids::{KeyId, ProjectId, RequestId},
    limits::{Audio, ByScope, Dimension, Limits, WrittenLimits},
    money::MoneyError,
    pricing::{Charge, Cost, ServiceTier, cost},
    tariff::Tariff,
    time::UnixNanos,
    usage::{Basis, Usage},
};

/// Written before the upstream is called: from here on the request is in the books, whatever happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    pub request_id: RequestId,
    pub admitted_at: UnixNanos,
    pub key_id: KeyId,
    /// `chat.completions`.
    pub endpoint: Arc<str>,
    /// As the caller wrote it.
    pub model: Arc<str>,
    pub stream: bool,
    /// What the request is charged when nobody learns more.
    pub estimate: Usage,
    /// Priced at the prices of the admission, for a request that is found open at start-up.
    pub charges: Vec<Charge>,
    /// At which they are: the one that was asked for, of several the dearest.
    #[serde(default, skip_serializing_if = "ServiceTier::is_default")]
    pub service_tier: ServiceTier,
    /// The dated model the charges are for.
    pub billed_model: Arc<str>,
    /// When the prices in use started; `None` without prices.
    pub prices_from: Option<UnixNanos>,
    pub hold: Hold,
}

/// What a request took from its buckets, with the limits in force: enough to rebuild the buckets from the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenHold")]
pub struct Hold {
    /// Whose keys share the project's buckets. `None` in journals of before projects had buckets: what was taken from the
    /// key's then is in `limits.key` alone, and counts as taken from its project's too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    pub limit_group: Arc<str>,
    /// Only the ceilings that were checked.
    pub limits: ByScope<Limits>,
    pub tokens: NonZeroU32,
    #[serde(skip_serializing_if = "Audio::is_none")]
    pub audio: Audio,
    /// Units in use of each limit before this request, so that it can be explained. `None` where there is no limit, and in
    /// journals of before it was written down.
    pub used_before: ByScope<UsedBefore>,
}

/// By dimension.
pub type UsedBefore = [Option<u64>; Dimension::COUNT];

/// A hold as this version or an earlier one wrote it, which knew fewer dimensions.
#[derive(Deserialize)]
struct WrittenHold {
    project_id: Option<ProjectId>,
    limit_group: Arc<str>,
    limits: WrittenLimits,
    tokens: NonZeroU32,
    #[serde(default)]
    audio: Audio,
    #[serde(default)]
    used_before: ByScope<Vec<Option<u64>>>,
    /// Of the key, when only keys had buckets.
    #[serde(default)]
    in_use: Vec<Option<u64>>,
}

impl From<WrittenHold> for Hold {
    fn from(written: WrittenHold) -> Self {
        let known = |numbers: &[Option<u64>]| -> UsedBefore {
            Dimension::ALL.map(|dimension| numbers.get(dimension.index()).copied().flatten())
        };
        let WrittenHold { project_id, limit_group, limits, tokens, audio, used_before, in_use } = written;
        let of_key = if in_use.is_empty() { &used_before.key } else { &in_use };
        let used_before = ByScope { project: known(&used_before.project), key: known(of_key) };
        Self { project_id, limit_group, limits: limits.into(), tokens, audio, used_before }
    }
}

impl Hold {
    /// Units taken from a bucket of `dimension`.
    pub fn units(&self, dimension: Dimension) -> u32 {
        units(dimension, self.tokens, self.audio)
    }

    /// What it has taken of every limit.
    pub const fn held(&self) -> Held {
        Held { tokens: self.tokens, audio: self.audio }
    }
}

/// What a request holds of its limits, whichever they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub tokens: NonZeroU32,
    pub audio: Audio,
}

impl Held {
    /// What counts against the limits of a request whose usage nobody reported: `usage` is a guess, except for the `delivered`
    /// output. A guess that gave way to a limit at the admission does not come back as a debt.
    pub fn counted(&self, usage: &Usage, delivered: &Usage) -> Used {
        let held = u64::from(self.tokens.get());
        let (input, output) = (usage.input_total().min(held), delivered.output_total());
        let tokens = usage.total().min(held.max(input.saturating_add(output)));
        let guessed = Audio::of(usage);
        let audio = Audio {
            input: guessed.input.min(self.audio.input),
            output: guessed.output.min(self.audio.output.max(Audio::of(delivered).output)),
        };
        Used { tokens, held_audio: Some(audio).filter(|audio| *audio != guessed), ..Used::of(true, usage) }
    }
}

/// What a request takes of a limit at its admission.
#[inline]
pub fn units(dimension: Dimension, tokens: NonZeroU32, audio: Audio) -> u32 {
    match dimension {
        _ if dimension.is_tokens() => tokens.get(),
        _ if dimension.is_audio() => u32::try_from(audio.units(dimension)).unwrap_or(u32::MAX),
        _ => 1,
    }
}

/// Written once per admission, before the client gets the last byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    pub request_id: RequestId,
    pub settled_at: UnixNanos,
    pub outcome: Outcome,
    pub basis: Basis,
    /// HTTP status of our answer; 0 when the client left before there was one.
    pub status: u16,
    /// The dated model that answered.
    pub billed_model: Arc<str>,
    pub service_tier: ServiceTier,
    /// When the prices of `charges` came into force, where another model's were used than the admission's too. `None`
    /// without prices, and in journals of before it was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices_from: Option<UnixNanos>,
    pub usage: Usage,
    pub charges: Vec<Charge>,
    pub used: Used,
}

/// What finally counts against the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// False when nothing reached the upstream: the request is given back to the request limits.
    pub request: bool,
    pub tokens: u64,
    /// That of the usage, from which it is read back: the journal does not write it twice.
    #[serde(skip)]
    pub audio: Audio,
    /// Where it is not that of the usage, because nobody reported any: what a request held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_audio: Option<Audio>,
}

impl Used {
    pub const NOTHING: Self = Self { request: false, tokens: 0, audio: Audio::NONE, held_audio: None };

    /// Of a request that the upstream has seen, if it is one.
    pub fn of(request: bool, usage: &Usage) -> Self {
        Self { request, tokens: usage.total(), audio: Audio::of(usage), held_audio: None }
    }

    #[inline]
    pub const fn units(&self, dimension: Dimension) -> u64 {
        match dimension {
            _ if dimension.is_tokens() => self.tokens,
            _ if dimension.is_audio() => match self.held_audio {
                Some(held) => held.units(dimension),
                None => self.audio.units(dimension),
            },
            _ => self.request as u64,
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Completed,
    ClientLeft,
    UpstreamFailed,
    /// The gateway stopped before the request ended.
    Interrupted,
}

impl Outcome {
    pub const ALL: [Self; 4] = [Self::Completed, Self::ClientLeft, Self::UpstreamFailed, Self::Interrupted];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientLeft => "client_left",
            Self::UpstreamFailed => "upstream_failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One finished request: a row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub admission: Admission,
    pub settlement: Settlement,
}

impl Entry {
    pub fn cost(&self) -> Result<Cost, MoneyError> {
        cost(&self.settlement.charges)
    }

    /// By what the request was billed. A model that has prices is only ever exchanged for another that has some, so a
    /// settlement without a date was billed by the admission's.
    pub fn tariff(&self) -> Tariff {
        let prices_from = self.settlement.prices_from.or(self.admission.prices_from);
        Tariff::of(&self.admission.endpoint, prices_from, &self.settlement)
    }
}

impl Admission {
    /// How a request is settled that was still open when the process ended: at its estimate. Its limits keep what it held:
    /// there may be more of it than the estimate, and where the estimate is more, it gave way to a limit.
    pub fn interrupted(&self, now: UnixNanos) -> Settlement {
        let used = Used::of(true, &self.estimate);
        let held_audio = Some(self.hold.audio).filter(|held| *held != used.audio);
        Settlement {
            request_id: self.request_id,
            settled_at: now,
            outcome: Outcome::Interrupted,
            basis: Basis::Estimated,
            status: 0,
            billed_model: Arc::clone(&self.billed_model),
            service_tier: self.service_tier,
            prices_from: self.prices_from,
            usage: self.estimate,
            charges: self.charges.clone(),
            used: Used { tokens: u64::from(self.hold.tokens.get()), held_audio, ..used },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::usage::LineItem,
        journal::samples::{admission, settlement},
    };

    #[test]
    fn a_guess_that_gave_way_is_no_debt_and_what_was_delivered_is() {
        let usage = |input: (u64, u64), output: (u64, u64)| {
            let input = Usage::default().with(LineItem::InputText, input.0).with(LineItem::InputAudio, input.1);
            input.with(LineItem::OutputText, output.0).with(LineItem::OutputAudio, output.1)
        };
        let counted = |tokens: u32, audio, guessed, delivered| {
            let tokens = NonZeroU32::new(tokens).unwrap();
            let hold = Hold { tokens, audio, ..admission(1).hold };
            let used = hold.held().counted(&guessed, &usage((0, 0), delivered));
            let audio = used.held_audio.unwrap_or(used.audio);
            (used.tokens, audio.input, audio.output)
        };
        let guessed = usage((16, 30), (56, 200));
        let all = Audio { input: 30, output: 200 };
        assert_eq!(counted(302, all, guessed, (0, 0)), (302, 30, 200), "nothing gave way");
        assert_eq!(counted(16_000, all, guessed, (0, 0)), (302, 30, 200), "more was held than is guessed");
        let little = Audio { input: 10, output: 20 };
        assert_eq!(counted(100, little, guessed, (0, 0)), (100, 10, 20));
        assert_eq!(counted(100, little, guessed, (3, 15)), (100, 10, 20));
        assert_eq!(counted(100, little, guessed, (56, 150)), (252, 10, 150), "46 of input were held too");
        assert_eq!(counted(20, little, guessed, (0, 0)), (20, 10, 20), "the input was a guess itself");
    }

    #[test]
    fn a_tariff_has_the_date_of_the_prices_that_were_really_used() {
        let date = |settled: Option<u64>, admitted: Option<u64>| {
            let [settled, admitted] = [settled, admitted].map(|seconds| seconds.map(UnixNanos::from_seconds));
            let admission = Admission { prices_from: admitted, ..admission(1) };
            let settlement = Settlement { prices_from: settled, ..settlement(&admission) };
            Entry { admission, settlement }.tariff().prices_from.map(UnixNanos::seconds)
        };
        assert_eq!(date(Some(7), Some(5)), Some(7));
        // As in journals of before the settlement had one.
        assert_eq!((date(None, Some(5)), date(None, None)), (Some(5), None));
    }

    #[test]
    fn what_the_end_of_the_process_interrupts_keeps_what_it_held_of_every_limit() {
        let estimate = Usage::default().with(LineItem::InputAudio, 30).with(LineItem::OutputAudio, 200);
        for output in [70, 200, 250] {
            let mut admission = Admission { estimate, ..admission(1) };
            admission.hold.audio = Audio { input: 30, output };
            let settlement = admission.interrupted(UnixNanos(1));
            for dimension in Dimension::ALL {
                assert_eq!(
                    settlement.used.units(dimension),
                    u64::from(admission.hold.units(dimension)),
                    "{dimension:?}"
                );
            }
            assert_eq!((settlement.usage, settlement.used.held_audio.is_some()), (estimate, output != 200));
        }
    }

    #[test]
    fn a_settlement_of_before_it_had_a_date_is_read() {
        let mut old = serde_json::to_value(settlement(&admission(1))).unwrap();
        assert!(old.as_object_mut().unwrap().remove("prices_from").is_some());
        assert_eq!(serde_json::from_value::<Settlement>(old).unwrap().prices_from, None);
    }

    #[test]
    fn a_hold_is_read_as_this_version_and_as_earlier_ones_wrote_it() {
        let some = NonZeroU32::new;
        let text = r#"{"limit_group":"m","limits":{"requests_per_minute":5},"tokens":7,"in_use":[3,null,40]}"#;
        let before: Hold = serde_json::from_str(text).unwrap();
        let limits = Limits { requests_per_minute: some(5), ..Limits::default() };
        let expected = Hold {
            project_id: None,
            limit_group: "m".into(),
            limits: ByScope { project: Limits::default(), key: limits },
            tokens: some(7).unwrap(),
            audio: Audio::NONE,
            used_before: ByScope {
                project: [None; Dimension::COUNT],
                key: [Some(3), None, Some(40), None, None, None, None, None],
            },
        };
        assert_eq!(before, expected);
        let oldest: Hold = serde_json::from_str(r#"{"limit_group":"m","limits":{},"tokens":7}"#).unwrap();
        assert_eq!((oldest.limits, oldest.used_before), (ByScope::default(), ByScope::default()));
        let hold = Hold {
            project_id: ProjectId::parse("proj_a"),
            audio: Audio { input: 3, output: 0 },
            limits: ByScope { project: limits, key: Limits { tokens_per_day: some(9), ..Limits::default() } },
            used_before: ByScope {
                project: [Some(1), None, None, None, None, None, None, None],
                key: [None, None, None, Some(2), None, None, None, None],
            },
            ..before
        };
        assert_eq!(serde_json::from_str::<Hold>(&serde_json::to_string(&hold).unwrap()).unwrap(), hold);
    }
}
