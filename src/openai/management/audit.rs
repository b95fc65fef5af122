//! `GET /v1/organization/audit_logs`: its query, and its rows as `OpenAI` writes them. Beyond `OpenAI`'s fields: the object
//! `before` and `after` the change, `object_id`, and the row's `hash`.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::requests::{DEFAULT_PAGE_LENGTH, MAX_PAGE_LENGTH, both_cursors, no_such_cursor};
use crate::{
    domain::{
        audit::{Actor, AuditRow},
        report::LATEST_TIME_S,
    },
    openai::{error::ApiError, report::query::Query},
};

/// What the caller asks for. An empty list is no filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// The first second that is shown.
    pub effective_from_s: Option<u64>,
    /// The first second that is not shown.
    pub effective_until_s: Option<u64>,
    pub project_ids: Vec<String>,
    pub event_types: Vec<String>,
    pub actor_ids: Vec<String>,
    pub resource_ids: Vec<String>,
    pub limit: usize,
    pub after: Option<String>,
    pub before: Option<String>,
}

impl AuditQuery {
    /// Unknown parameters are ignored, as `OpenAI` does; filters by what no row here has (`actor_emails`) find nothing.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let query = Query::parse(query);
        let list =
            |name| query.list(name).map(|values| values.unwrap_or_default().into_iter().collect::<Vec<String>>());
        let time = |name| query.integer(name, 0, LATEST_TIME_S);
        let later = |seconds: Option<u64>| seconds.map(|seconds| seconds.saturating_add(1));
        let (gt, gte) = (time("effective_at[gt]")?, time("effective_at[gte]")?);
        let (lt, lte) = (time("effective_at[lt]")?, time("effective_at[lte]")?);
        let mut actor_ids = list("actor_ids")?;
        // Nobody here has an e-mail address.
        actor_ids.extend(list("actor_emails")?);
        let limit = query.integer("limit", 1, MAX_PAGE_LENGTH as u64)?;
        let (after, before) = (query.text("after")?.map(str::to_owned), query.text("before")?.map(str::to_owned));
        if after.is_some() && before.is_some() {
            return Err(both_cursors());
        }
        Ok(Self {
            effective_from_s: later(gt).max(gte),
            effective_until_s: [lt, later(lte)].into_iter().flatten().min(),
            project_ids: list("project_ids")?,
            event_types: list("event_types")?,
            actor_ids,
            resource_ids: list("resource_ids")?,
            limit: limit.map_or(DEFAULT_PAGE_LENGTH, |limit| usize::try_from(limit).unwrap_or(MAX_PAGE_LENGTH)),
            after,
            before,
        })
    }

    /// What is said of a cursor that names no row.
    pub fn no_such_cursor(&self) -> ApiError {
        match (&self.after, &self.before) {
            (Some(after), _) => no_such_cursor("after", after),
            (None, before) => no_such_cursor("before", before.as_deref().unwrap_or_default()),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct AuditPage {
    object: &'static str,
    data: Vec<AuditObject>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

impl AuditPage {
    pub fn new(rows: &[AuditRow], has_more: bool) -> Self {
        Self {
            object: "list",
            data: rows.iter().map(AuditObject::from).collect(),
            first_id: rows.first().map(AuditRow::id),
            last_id: rows.last().map(AuditRow::id),
            has_more,
        }
    }
}

#[derive(Debug, Serialize)]
struct AuditObject {
    object: &'static str,
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    effective_at: u64,
    actor: ActorObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<ProjectName>,
    /// Under the name of the event's type.
    #[serde(flatten)]
    details: Map<String, Value>,
    object_id: String,
    before: Option<Box<RawValue>>,
    after: Option<Box<RawValue>>,
    hash: String,
}

#[derive(Debug, Serialize)]
struct ActorObject {
    #[serde(rename = "type")]
    kind: &'static str,
    api_key: ActorKey,
}

#[derive(Debug, Serialize)]
struct ActorKey {
    id: String,
    /// An admin key acts for people, the gateway for itself.
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct ProjectName {
    id: String,
    name: Option<String>,
}

impl From<&AuditRow> for AuditObject {
    fn from(row: &AuditRow) -> Self {
        let raw = |json: &Option<String>| json.clone().and_then(|json| RawValue::from_string(json).ok());
        let kind = if row.actor == Actor::Gateway.id() { "service_account" } else { "user" };
        Self {
            object: "organization.audit_log",
            id: row.id(),
            event_type: row.event_type.clone(),
            effective_at: row.effective_at.seconds(),
            actor: ActorObject { kind: "api_key", api_key: ActorKey { id: row.actor.clone(), kind } },
            project: row.project_id.clone().map(|id| ProjectName { id, name: row.project_name.clone() }),
            details: Map::from_iter([(row.event_type.clone(), details(row))]),
            object_id: row.object_id.clone(),
            before: raw(&row.before),
            after: raw(&row.after),
            hash: row.hash.to_string(),
        }
    }
}

/// The event's payload: what was made, or what was asked to be different, with the id.
fn details(row: &AuditRow) -> Value {
    let read = |json: &Option<String>| -> Map<String, Value> {
        json.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    };
    let mut details = Map::from_iter([("id".to_owned(), Value::from(row.object_id.as_str()))]);
    let mut facts = read(&row.after);
    let under = match row.event_type.rsplit_once('.') {
        Some((_, "created")) => "data",
        Some((_, "updated")) => {
            let before = read(&row.before);
            facts.retain(|name, value| before.get(name) != Some(value));
            "changes_requested"
        }
        _ => return Value::Object(details),
    };
    // A project's name is its title there.
    if row.event_type.starts_with("project.")
        && let Some(name) = facts.get("name").cloned()
    {
        facts.insert("title".to_owned(), name);
    }
    details.insert(under.to_owned(), Value::Object(facts));
    Value::Object(details)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{audit::AuditHash, time::UnixNanos};

    fn row(event_type: &str, before: Option<&Value>, after: Option<&Value>) -> AuditRow {
        AuditRow {
            number: 7,
            event_type: event_type.to_owned(),
            actor: "key_a".to_owned(),
            effective_at: UnixNanos::from_seconds(5),
            object_id: "proj_a".to_owned(),
            project_id: Some("proj_a".to_owned()),
            project_name: Some("A".to_owned()),
            before: before.map(ToString::to_string),
            after: after.map(ToString::to_string),
            hash: AuditHash::from_bytes([0xab; 32]),
        }
    }

    fn printed(row: &AuditRow) -> Value {
        serde_json::to_value(AuditPage::new(std::slice::from_ref(row), false)).unwrap()["data"][0].clone()
    }

    #[test]
    fn a_row_has_openais_fields_and_ours() {
        let (before, after) = (json!({"name": "a", "tier": "tier1"}), json!({"name": "A", "tier": "tier1"}));
        let expected = json!({
            "object": "organization.audit_log", "id": "audit_log-7_abababab", "type": "project.updated",
            "effective_at": 5,
            "actor": {"type": "api_key", "api_key": {"id": "key_a", "type": "user"}},
            "project": {"id": "proj_a", "name": "A"},
            "project.updated": {"id": "proj_a", "changes_requested": {"name": "A", "title": "A"}},
            "object_id": "proj_a", "before": before, "after": after, "hash": "ab".repeat(32),
        });
        assert_eq!(printed(&row("project.updated", Some(&before), Some(&after))), expected);
    }

    #[test]
    fn payloads_follow_the_type() {
        let facts = json!({"name": "n", "tier": "t"});
        let payload = |event_type, before, after| printed(&row(event_type, before, after))[event_type].clone();
        let created = json!({"id": "proj_a", "data": {"name": "n", "tier": "t", "title": "n"}});
        assert_eq!(payload("project.created", None, Some(&facts)), created);
        assert_eq!(payload("project.archived", Some(&facts), Some(&facts)), json!({"id": "proj_a"}));
        assert_eq!(payload("api_key.deleted", Some(&facts), None), json!({"id": "proj_a"}));
        let created = json!({"id": "proj_a", "data": {"name": "n", "tier": "t"}});
        assert_eq!(payload("service_account.created", None, Some(&facts)), created);
    }

    #[test]
    fn times_are_read_from_all_four_bounds() {
        let range = |query| AuditQuery::parse(query).map(|it| (it.effective_from_s, it.effective_until_s)).unwrap();
        assert_eq!(range(""), (None, None));
        assert_eq!(range("effective_at[gt]=5&effective_at[lt]=9"), (Some(6), Some(9)));
        assert_eq!(range("effective_at%5Bgte%5D=5&effective_at[lte]=9"), (Some(5), Some(10)));
        assert_eq!(
            range("effective_at[gt]=5&effective_at[gte]=8&effective_at[lte]=9&effective_at[lt]=3"),
            (Some(8), Some(3))
        );
        let error = AuditQuery::parse("effective_at[gt]=x").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("effective_at[gt]"));
    }

    #[test]
    fn lists_and_paging_are_read() {
        let query = AuditQuery::parse("project_ids[]=a&event_types=b,c&actor_emails[]=x@y&limit=5&after=z").unwrap();
        assert_eq!(
            (query.project_ids, query.event_types),
            (vec!["a".to_owned()], vec!["b".to_owned(), "c".to_owned()])
        );
        assert_eq!((query.actor_ids, query.limit, query.after.as_deref()), (vec!["x@y".to_owned()], 5, Some("z")));
        assert_eq!(AuditQuery::parse("").unwrap().limit, 20);
        for wrong in ["limit=0", "limit=101", "after=a&before=b"] {
            assert_eq!(AuditQuery::parse(wrong).unwrap_err().status, 400, "{wrong}");
        }
    }
}
