//! From packed cells to the rows of a report.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::StoreError,
    directory::{Directory, Key},
};
use crate::domain::{
    ids::ProjectId,
    money::Total,
    pricing::ServiceTier,
    report::{Line, Row, Selection},
    rollup::{self, Cells, Detail, Place},
    tariff::{Tariff, TariffKind},
    usage::{LineItem, Usage},
};

/// By key and tariff.
/// A product is made at the end: one for many cells.
type Places = rollup::Totals<(u32, u32)>;

/// How a selection sees keys and tariffs: by number, the group that each belongs to; `None` for what is not selected.
pub(super) struct Sums<'a> {
    selection: &'a Selection,
    directory: &'a Directory,
    /// A key's own number, that of its project's first key, or 0 when not even projects are told apart.
    keys: Vec<Option<u32>>,
    tariffs: Vec<Option<(u32, &'a Arc<Tariff>)>>,
    /// What the tariffs of a group have in common.
    kinds: Vec<Kind>,
}

type Kind = (Option<Arc<str>>, Option<ServiceTier>);

/// Key and kind.
type Group = (u32, u32);

#[derive(Clone, Default)]
struct Sum {
    requests: u64,
    unpriced_requests: i128,
    quantities: [u64; LineItem::COUNT],
    amounts: [i128; LineItem::COUNT],
}

impl<'a> Sums<'a> {
    pub(super) fn new(selection: &'a Selection, directory: &'a Directory) -> Self {
        let mut kinds = Vec::new();
        let mut numbers: HashMap<Kind, u32> = HashMap::new();
        let mut projects: HashMap<&ProjectId, u32> = HashMap::new();
        let keys = directory.keys().zip(0..).map(|(key, number)| {
            let key = key.filter(|key| is_selected_key(selection, key))?;
            Some(match selection.callers {
                Detail::Keys => number,
                Detail::Projects => *projects.entry(&key.project_id).or_insert(number),
                Detail::Together => 0,
            })
        });
        let tariffs = directory.tariffs().map(|tariff| {
            let tariff = tariff.filter(|tariff| is_selected_tariff(selection, tariff))?;
            let model = selection.by_model.then(|| Arc::clone(&tariff.model));
            let kind = (model, selection.by_service_tier.then_some(tariff.service_tier));
            let next = u32::try_from(kinds.len()).ok()?;
            let number = *numbers.entry(kind.clone()).or_insert_with(|| {
                kinds.push(kind);
                next
            });
            Some((number, tariff))
        });
        let (mut keys, tariffs): (Vec<_>, _) = (keys.collect(), tariffs.collect());
        // Cells in which nobody is told apart.
        keys.resize(keys.len().max(1), None);
        if let Some(nobody) = keys.first_mut() {
            *nobody = Some(0);
        }
        Self { selection, directory, keys, tariffs, kinds }
    }

    pub(super) fn of(&self, mut parts: Vec<(i64, Vec<u8>)>) -> Result<Vec<Row>, StoreError> {
        parts.sort_by_key(|(start_s, _)| *start_s);
        let mut rows = Vec::new();
        let mut places = Places::default();
        let mut current = None;
        for (start_s, cells) in &parts {
            let start_s = u64::try_from(*start_s).map_err(|_| StoreError::Unreadable(start_s.to_string()))?;
            let bucket_s = self.selection.bucket_start_s(start_s);
            if let Some(finished) = current.replace(bucket_s).filter(|finished| *finished != bucket_s) {
                self.finish(finished, &mut places, &mut rows)?;
            }
            Cells::of(cells)?.add_up(&mut places, |key, tariff| self.place(key, tariff))?;
        }
        if let Some(last) = current {
            self.finish(last, &mut places, &mut rows)?;
        }
        Ok(rows)
    }

    /// The key's group and the tariff that a cell counts for.
    fn place(&self, key: u32, tariff: u32) -> Place<(u32, u32)> {
        match (self.keys.get(key as usize), self.tariffs.get(tariff as usize)) {
            (Some(Some(key)), Some(Some(_))) => Place::Of((*key, tariff)),
            (Some(_), Some(_)) => Place::Nowhere,
            _ => Place::Unknown,
        }
    }

    /// Empties `places` into the rows of the bucket, in order.
    fn finish(&self, bucket_s: u64, places: &mut Places, rows: &mut Vec<Row>) -> Result<(), StoreError> {
        let mut sums: HashMap<Group, Sum, foldhash::fast::RandomState> = HashMap::default();
        for ((key, tariff), (requests, usage)) in places.drain() {
            let Some((kind, tariff)) = self.tariffs.get(tariff as usize).copied().flatten() else { continue };
            sums.entry((key, kind)).or_default().add(requests, &usage, tariff).ok_or(StoreError::SumOverflow)?;
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_unstable_by_key(|(group, _)| *group);
        for (group, sum) in &sums {
            rows.push(self.row(bucket_s, *group, sum)?);
        }
        Ok(())
    }

    fn row(&self, bucket_start_s: u64, (key, kind): Group, sum: &Sum) -> Result<Row, StoreError> {
        let key = self.directory.key(key);
        let (model, service_tier) = self.kinds.get(kind as usize).cloned().unwrap_or_default();
        let lines = LineItem::ALL.into_iter().zip(sum.quantities).zip(sum.amounts);
        let lines = lines.filter(|((_, quantity), amount)| *quantity != 0 || *amount != 0);
        Ok(Row {
            bucket_start_s,
            project_id: key.map(|key| key.project_id.clone()),
            api_key_id: key.filter(|_| self.selection.callers == Detail::Keys).map(|key| key.id.clone()),
            model,
            service_tier,
            requests: sum.requests,
            unpriced_requests: u64::try_from(sum.unpriced_requests).map_err(|_| StoreError::SumOverflow)?,
            lines: lines
                .map(|((line_item, quantity), pico)| Line { line_item, quantity, amount: Total::from_pico(pico) })
                .collect(),
        })
    }
}

impl Sum {
    fn add(&mut self, requests: u64, usage: &Usage, tariff: &Tariff) -> Option<()> {
        let is_request = tariff.kind == TariffKind::Request;
        for (item, used) in usage.items() {
            let (quantity, amount) = (self.quantities.get_mut(item.index())?, self.amounts.get_mut(item.index())?);
            *amount = amount.checked_add(tariff.amount(item, used).ok()?.pico())?;
            if is_request {
                *quantity = quantity.checked_add(used)?;
            }
        }
        match (tariff.kind, tariff.priced) {
            (TariffKind::Request, priced) => {
                self.requests = self.requests.checked_add(requests)?;
                self.unpriced_requests += if priced { 0 } else { i128::from(requests) };
            }
            // Those that have a price since.
            (TariffKind::Adjustment, _) => self.unpriced_requests -= i128::from(requests),
        }
        Some(())
    }
}

fn is_selected_key(selection: &Selection, key: &Key) -> bool {
    lists(selection.project_ids.as_deref(), key.project_id.as_str())
        && lists(selection.api_key_ids.as_deref(), key.id.as_str())
}

fn is_selected_tariff(selection: &Selection, tariff: &Tariff) -> bool {
    lists(selection.endpoints.as_deref(), &tariff.endpoint)
        && lists(selection.models.as_deref(), &tariff.model)
        && selection.batch.is_none_or(|batch| batch == (tariff.service_tier == ServiceTier::Batch))
}

fn lists(names: Option<&[String]>, name: &str) -> bool {
    names.is_none_or(|names| names.iter().any(|listed| listed == name))
}
