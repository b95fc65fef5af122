//! From packed cells to the rows of a report.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::StoreError,
    directory::{Directory, Key},
};
use crate::domain::{
    money::Total,
    pricing::ServiceTier,
    report::{Line, Row, Selection},
    rollup::{Cell, Cells},
    tariff::{Tariff, TariffKind},
    usage::LineItem,
};

/// How a selection sees keys and tariffs: by number, the group that each belongs to; `None` for what is not selected.
pub(super) struct Sums<'a> {
    selection: &'a Selection,
    directory: &'a Directory,
    /// A key's own number, or 0 when keys are not told apart.
    keys: Vec<Option<u32>>,
    tariffs: Vec<Option<(u32, &'a Arc<Tariff>)>>,
    /// What the tariffs of a group have in common.
    kinds: Vec<Kind>,
}

type Kind = (Option<Arc<str>>, Option<ServiceTier>);

/// Bucket, key and kind.
type Group = (u64, u32, u32);

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
        let keys = directory.keys().zip(0..).map(|(key, number)| {
            let selected = key.is_some_and(|key| is_selected_key(selection, key));
            selected.then_some(if selection.by_api_key { number } else { 0 })
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
        let (keys, tariffs) = (keys.collect(), tariffs.collect());
        Self { selection, directory, keys, tariffs, kinds }
    }

    pub(super) fn of(&self, parts: &[(i64, Vec<u8>)]) -> Result<Vec<Row>, StoreError> {
        let mut places: HashMap<Group, usize> = HashMap::new();
        let mut sums: Vec<(Group, Sum)> = Vec::new();
        for (start_s, cells) in parts {
            let start_s = u64::try_from(*start_s).map_err(|_| StoreError::Unreadable(start_s.to_string()))?;
            let bucket_s = self.selection.bucket_start_s(start_s);
            for cell in Cells::of(cells)? {
                let cell = cell?;
                let Some((key, kind, tariff)) = self.place(&cell)? else { continue };
                let group = (bucket_s, key, kind);
                let at = *places.entry(group).or_insert_with(|| {
                    sums.push((group, Sum::default()));
                    sums.len() - 1
                });
                if let Some((_, sum)) = sums.get_mut(at) {
                    sum.add(&cell, tariff).ok_or(StoreError::SumOverflow)?;
                }
            }
        }
        sums.sort_unstable_by_key(|(group, _)| *group);
        sums.iter().map(|(group, sum)| self.row(*group, sum)).collect()
    }

    fn place(&self, cell: &Cell) -> Result<Option<(u32, u32, &Tariff)>, StoreError> {
        let unknown = |what: &str| StoreError::Unreadable(format!("a sum of an unknown {what}"));
        let key = self.keys.get(cell.api_key as usize).ok_or_else(|| unknown("API key"))?;
        let tariff = self.tariffs.get(cell.tariff as usize).ok_or_else(|| unknown("tariff"))?;
        Ok(key.zip(*tariff).map(|(key, (kind, tariff))| (key, kind, &**tariff)))
    }

    fn row(&self, (bucket_start_s, key, kind): Group, sum: &Sum) -> Result<Row, StoreError> {
        let key = self.directory.key(key);
        let (model, service_tier) = self.kinds.get(kind as usize).cloned().unwrap_or_default();
        let lines = LineItem::ALL.into_iter().zip(sum.quantities).zip(sum.amounts);
        let lines = lines.filter(|((_, quantity), amount)| *quantity != 0 || *amount != 0);
        Ok(Row {
            bucket_start_s,
            project_id: key.map(|key| key.project_id.clone()),
            api_key_id: key.map(|key| key.id.clone()),
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
    fn add(&mut self, cell: &Cell, tariff: &Tariff) -> Option<()> {
        let places = self.quantities.iter_mut().zip(&mut self.amounts);
        let is_request = tariff.kind == TariffKind::Request;
        for (item, (quantity, amount)) in LineItem::ALL.into_iter().zip(places) {
            let used = cell.usage.get(item);
            if used == 0 {
                continue;
            }
            *amount = amount.checked_add(tariff.amount(item, used).ok()?.pico())?;
            if is_request {
                *quantity = quantity.checked_add(used)?;
            }
        }
        match (tariff.kind, tariff.priced) {
            (TariffKind::Request, priced) => {
                self.requests = self.requests.checked_add(cell.requests)?;
                self.unpriced_requests += if priced { 0 } else { i128::from(cell.requests) };
            }
            // Those that have a price since.
            (TariffKind::Adjustment, _) => self.unpriced_requests -= i128::from(cell.requests),
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
