//! The body of a webhook, in the envelope of `OpenAI`'s.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::domain::{audit::AuditRow, webhooks::Event};

#[derive(Serialize)]
struct Envelope<'a> {
    object: &'static str,
    id: String,
    #[serde(rename = "type")]
    event_type: &'a str,
    created_at: u64,
    data: Value,
}

/// Tells of a row of the audit log: its id, what it is about and what it says of it afterwards. The same row makes the same
/// event.
pub fn event(row: &AuditRow) -> Event {
    let after = row.after.as_deref().and_then(|after| serde_json::from_str(after).ok());
    let mut data: Map<String, Value> = after.unwrap_or_default();
    data.insert("id".to_owned(), row.id().into());
    data.insert("object_id".to_owned(), row.object_id.as_str().into());
    if let Some(id) = &row.project_id {
        data.insert("project".to_owned(), json!({ "id": id, "name": row.project_name }));
    }
    let hash = row.hash.to_string();
    let unique = hash.get(..32).unwrap_or(&hash);
    let (object, id, created_at) = ("event", format!("evt_{unique}"), row.effective_at.seconds());
    let envelope = Envelope { object, id, event_type: &row.event_type, created_at, data: Value::Object(data) };
    Event { id: format!("wh_{unique}"), body: json!(envelope).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{audit::AuditHash, time::UnixNanos};

    #[test]
    fn an_event_has_openais_envelope_and_what_the_row_says() {
        let row = AuditRow {
            number: 7,
            event_type: "spend_limit.mark_passed".to_owned(),
            actor: "gateway".to_owned(),
            effective_at: UnixNanos::from_seconds(5),
            object_id: "key_a".to_owned(),
            project_id: Some("proj_a".to_owned()),
            project_name: Some("A".to_owned()),
            before: None,
            after: Some(json!({"percent": 80, "spent_dollars": "0.8"}).to_string()),
            hash: AuditHash::from_bytes([0xab; 32]),
        };
        let told = event(&row);
        assert_eq!(told.id, format!("wh_{}", "ab".repeat(16)));
        let expected = json!({
            "object": "event", "id": format!("evt_{}", "ab".repeat(16)), "type": "spend_limit.mark_passed",
            "created_at": 5,
            "data": {
                "id": "audit_log-7_abababab", "object_id": "key_a", "project": {"id": "proj_a", "name": "A"},
                "percent": 80, "spent_dollars": "0.8",
            },
        });
        assert_eq!(serde_json::from_str::<Value>(&told.body).unwrap(), expected);
    }
}
