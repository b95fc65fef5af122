//! The models the simulator knows by name. A name it does not know is answered too, and echoed as it is.

use std::io::Write;

use serde_json::to_writer;

/// What a model can do, as far as answers and errors depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Hears and speaks; wants audio on at least one side.
    Audio,
    Text,
    Reasoning,
    /// `sim-*`: no rule applies.
    Anything,
}

struct Model {
    name: &'static str,
    snapshot: &'static str,
    created: u64,
}

const fn model(name: &'static str, snapshot: &'static str, created: u64) -> Model {
    Model { name, snapshot, created }
}

static MODELS: &[Model] = &[
    model("gpt-4o-mini-audio-preview", "gpt-4o-mini-audio-preview-2024-12-17", 1_734_387_424),
    model("gpt-4o-mini", "gpt-4o-mini-2024-07-18", 1_721_172_741),
    model("gpt-4o", "gpt-4o-2024-08-06", 1_715_367_049),
    model("gpt-4o-audio-preview", "gpt-4o-audio-preview-2025-06-03", 1_727_460_443),
    model("gpt-audio", "gpt-audio-2025-08-28", 1_756_339_249),
    model("gpt-audio-mini", "gpt-audio-mini-2025-12-15", 1_759_512_137),
    model("gpt-audio-1.5", "gpt-audio-1.5", 1_771_550_887),
    model("gpt-4.1", "gpt-4.1-2025-04-14", 1_744_316_542),
    model("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", 1_744_318_173),
    model("gpt-4.1-nano", "gpt-4.1-nano-2025-04-14", 1_744_321_707),
    model("gpt-3.5-turbo", "gpt-3.5-turbo-0125", 1_677_610_602),
    model("gpt-5", "gpt-5-2025-08-07", 1_754_425_777),
    model("gpt-5-mini", "gpt-5-mini-2025-08-07", 1_754_425_928),
    model("gpt-5-nano", "gpt-5-nano-2025-08-07", 1_754_426_384),
    model("o1", "o1-2024-12-17", 1_734_375_816),
    model("o3", "o3-2025-04-16", 1_744_225_308),
    model("o3-mini", "o3-mini-2025-01-31", 1_737_146_383),
    model("o4-mini", "o4-mini-2025-04-16", 1_744_225_351),
];

pub(super) fn kind(name: &str) -> Kind {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if starts(&["sim-"]) {
        Kind::Anything
    } else if name.contains("audio") {
        Kind::Audio
    } else if starts(&["o1", "o3", "o4", "gpt-5"]) {
        Kind::Reasoning
    } else {
        Kind::Text
    }
}

/// The dated model that answers for `name`.
pub(super) fn snapshot(name: &str) -> &str {
    MODELS.iter().find(|model| model.name == name).map_or(name, |model| model.snapshot)
}

pub(super) fn is_unknown(name: &str) -> bool {
    name.starts_with("no-such-") || name.starts_with("nonexistent")
}

/// The body of `GET /v1/models`: every alias and every snapshot.
pub(super) fn list() -> Vec<u8> {
    let mut out = br#"{"object":"list","data":["#.to_vec();
    for model in MODELS {
        write_model(model.name, model.created, &mut out);
        out.push(b',');
        if model.snapshot != model.name {
            write_model(model.snapshot, model.created, &mut out);
            out.push(b',');
        }
    }
    out.pop();
    out.extend_from_slice(b"]}");
    out
}

/// The body of `GET /v1/models/{id}`.
pub(super) fn find(id: &str) -> Option<Vec<u8>> {
    let known = MODELS.iter().find(|model| model.name == id || model.snapshot == id)?;
    let mut out = Vec::new();
    write_model(id, known.created, &mut out);
    Some(out)
}

fn write_model(id: &str, created: u64, out: &mut Vec<u8>) {
    // Writing into memory cannot fail.
    let _ = out.write_all(br#"{"id":"#);
    let _ = to_writer(&mut *out, id);
    let _ = write!(out, r#","object":"model","created":{created},"owned_by":"system"}}"#);
}
