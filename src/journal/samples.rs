//! Requests for tests.

use std::{num::NonZeroU32, sync::Arc};

use super::{Journal, Options, Position, Record};
use crate::domain::{
    ids::{KeyId, ProjectId, RequestId},
    ledger::{Admission, Hold, Outcome, Settlement, Used},
    limits::{Audio, ByScope, Dimension, Limits},
    money::Money,
    pricing::{Charge, ServiceTier},
    time::UnixNanos,
    usage::{Basis, LineItem, Usage},
};

pub(crate) const NOW: UnixNanos = UnixNanos::from_seconds(1_790_000_000);

pub(crate) fn admission(number: u64) -> Admission {
    let estimate = Usage::default().with(LineItem::InputText, 20).with(LineItem::OutputText, 100);
    Admission {
        request_id: RequestId::new(NOW.millis() + number, u128::from(number)),
        admitted_at: NOW.plus_nanos(number * 1_000_000),
        key_id: KeyId::parse("key_one").unwrap(),
        endpoint: "chat.completions".into(),
        model: "gpt-4o-audio-preview".into(),
        stream: number.is_multiple_of(2),
        estimate,
        charges: charges(&estimate),
        service_tier: ServiceTier::Default,
        billed_model: "gpt-4o-audio-preview-2024-12-17".into(),
        prices_from: Some(UnixNanos::from_seconds(1_700_000_000)),
        hold: Hold {
            project_id: ProjectId::parse("proj_one"),
            limit_group: "gpt-4o-audio-preview".into(),
            limits: ByScope {
                project: Limits {
                    requests_per_minute: NonZeroU32::new(500),
                    tokens_per_minute: NonZeroU32::new(200_000),
                    ..Limits::default()
                },
                key: Limits::default(),
            },
            tokens: NonZeroU32::new(120).unwrap(),
            audio: Audio::NONE,
            used_before: ByScope {
                project: [Some(1), None, Some(40), None, None, None, None, None],
                key: [None; Dimension::COUNT],
            },
        },
    }
}

pub(crate) fn settlement(admission: &Admission) -> Settlement {
    let usage = Usage::default().with(LineItem::InputAudio, 17).with(LineItem::OutputText, 6);
    Settlement {
        request_id: admission.request_id,
        settled_at: admission.admitted_at.plus_nanos(900_000_000),
        outcome: Outcome::Completed,
        basis: Basis::Reported,
        status: 200,
        billed_model: Arc::clone(&admission.billed_model),
        service_tier: ServiceTier::Default,
        prices_from: admission.prices_from,
        usage,
        charges: charges(&usage),
        used: Used::of(true, &usage),
    }
}

/// One micro-dollar per million for each step of the line item.
pub(crate) fn charges(usage: &Usage) -> Vec<Charge> {
    let price = |item: LineItem| Money::from_pico(1 + i64::try_from(item.index()).unwrap());
    usage.items().map(|(line_item, quantity)| Charge { line_item, quantity, price: Some(price(line_item)) }).collect()
}

/// A journal of small segments that may hold about `max_segments`.
pub(crate) fn small(dir: &std::path::Path, max_segments: u64) -> Options {
    let segment_bytes = 16 << 10;
    Options { segment_bytes, max_bytes: segment_bytes * max_segments, ..Options::new(dir) }
}

/// Admits and settles one request.
pub(crate) fn finish(journal: &Journal, number: u64) {
    let admission = admission(number);
    let ticket = journal.admit(&admission).unwrap();
    journal.settle(ticket, &settlement(&admission));
}

pub(crate) fn read_all(journal: &Journal, mut from: Position) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        let batch = journal.read(from, 700).unwrap();
        if batch.next == from {
            return records;
        }
        from = batch.next;
        records.extend(batch.records);
    }
}

impl Journal {
    /// From now on the current segment takes nothing more: its file is open for reading only.
    pub(crate) fn break_disk(&self) {
        let segment = self.end().segment;
        let path = self.writer().segment_path(segment);
        self.writer().current_mut().file = Arc::new(std::fs::File::open(path).unwrap());
    }
}
