//! Who is calling. Plain functions over the headers, and the same as extractors: a handler that takes a [`Caller`] or an
//! [`Admin`] cannot be reached without one.

use std::{borrow::Cow, sync::Arc};

use axum::extract::{FromRef, FromRequestParts};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, GetAll},
    request::Parts,
};

use crate::{
    accounts::Accounts,
    clock::Clock,
    domain::{keys::Caller, time::UnixNanos},
    openai::error::ApiError,
    secrets::AdminKeys,
};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Proof that the admin key was presented. Only [`admin`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    _proof: (),
}

/// The project behind the request's API key.
pub fn caller(accounts: &Accounts, headers: &HeaderMap, now: UnixNanos) -> Result<Caller, ApiError> {
    match credential(headers)? {
        Some(credential) => accounts.authenticate(&credential, now),
        None => Err(ApiError::no_key()),
    }
}

/// 401 without an admin key, but 403 to a valid API key: its owner is known, and not allowed.
pub fn admin(
    admin_keys: &AdminKeys,
    accounts: &Accounts,
    headers: &HeaderMap,
    now: UnixNanos,
) -> Result<Admin, ApiError> {
    let Some(credential) = credential(headers)? else { return Err(ApiError::admin_key_required()) };
    if admin_keys.verify(&credential) {
        return Ok(Admin { _proof: () });
    }
    match accounts.authenticate(&credential, now) {
        Ok(_) => Err(ApiError::insufficient_permissions()),
        Err(_) => Err(ApiError::admin_key_required()),
    }
}

/// The key in `Authorization: Bearer <key>`. An `x-api-key` header is no credential, but one that differs tells that
/// something between the client and us added its own.
fn credential(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, ApiError> {
    let mut authorizations = headers.get_all(AUTHORIZATION).iter();
    let authorization = authorizations.next();
    if authorizations.next().is_some() {
        return Err(ApiError::conflicting_credentials());
    }
    let bearer = authorization.and_then(bearer);
    if authorization.is_some() && differs(headers.get_all(X_API_KEY), bearer) {
        return Err(ApiError::conflicting_credentials());
    }
    // Bytes that are no text become characters that no key has.
    Ok(bearer.map(String::from_utf8_lossy))
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = value.as_bytes().split_at_checked(b"bearer".len())?;
    let key = rest.trim_ascii();
    let separated = rest.first().is_some_and(u8::is_ascii_whitespace);
    (scheme.eq_ignore_ascii_case(b"bearer") && separated && !key.is_empty()).then_some(key)
}

fn differs(others: GetAll<'_, HeaderValue>, bearer: Option<&[u8]>) -> bool {
    others.iter().any(|other| Some(other.as_bytes().trim_ascii()) != bearer)
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Arc<Accounts>: FromRef<S>,
    Clock: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        caller(&Arc::from_ref(state), &parts.headers, Clock::from_ref(state).now())
    }
}

impl<S> FromRequestParts<S> for Admin
where
    S: Send + Sync,
    Arc<Accounts>: FromRef<S>,
    Arc<AdminKeys>: FromRef<S>,
    Clock: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (admin_keys, accounts) = (Arc::<AdminKeys>::from_ref(state), Arc::<Accounts>::from_ref(state));
        admin(&admin_keys, &accounts, &parts.headers, Clock::from_ref(state).now())
    }
}
