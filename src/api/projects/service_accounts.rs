//! `/v1/organization/projects/{project_id}/service_accounts`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};

use super::{InAccount, InProject, ListQuery, read, refused, with_secret};
use crate::{
    accounts::Accounts,
    api::{auth::Admin, body::SmallBody},
    clock::Clock,
    openai::{
        error::ApiError,
        management::{
            answers::{AccountKeyCreated, Deleted, Page, ServiceAccountCreated, ServiceAccountObject},
            requests::{NewKey, NewServiceAccount, ServiceAccountUpdate},
        },
    },
};

pub(in crate::api) async fn create(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    InProject(project): InProject,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let NewServiceAccount { name, key } = NewServiceAccount::parse(&body)?;
    let by = admin.acts(clock.now());
    let Some(terms) = key else {
        let created = accounts.create_service_account_only(&project.id, &name, &by).await;
        let account = created.map_err(|error| refused(&error))?;
        return Ok(Json(ServiceAccountCreated::new(&account, None)).into_response());
    };
    let created = accounts.create_service_account(&project.id, &name, terms.from(by.at), &by).await;
    let (account, key, plain) = created.map_err(|error| refused(&error))?;
    let key = AccountKeyCreated::first(&key, plain.reveal());
    Ok(with_secret(&ServiceAccountCreated::new(&account, Some(key))))
}

pub(in crate::api) async fn list(
    _: Admin,
    State(accounts): State<Arc<Accounts>>,
    InProject(project): InProject,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let query = read(query)?;
    let found = accounts.service_accounts_of(&project.id);
    let listed = found.iter().map(|account| {
        let there = account.deleted_at.is_none();
        (account.id.as_str(), there.then(|| ServiceAccountObject::from(&**account)))
    });
    Ok(Json(Page::cut(&query.page()?, listed.collect())?).into_response())
}

pub(in crate::api) async fn retrieve(_: Admin, InAccount { account, .. }: InAccount) -> Response {
    Json(ServiceAccountObject::from(&*account)).into_response()
}

pub(in crate::api) async fn modify(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    InAccount { project, account }: InAccount,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let ServiceAccountUpdate { name, role } = ServiceAccountUpdate::parse(&body)?;
    let by = admin.acts(clock.now());
    let modified = accounts.modify_service_account(&project.id, &account.id, name, role, &by).await;
    let account = modified.map_err(|error| refused(&error))?;
    Ok(Json(ServiceAccountObject::from(&*account)).into_response())
}

/// Its keys are revoked with it.
pub(in crate::api) async fn delete(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    InAccount { project, account }: InAccount,
) -> Result<Response, ApiError> {
    let deleted = accounts.delete_service_account(&project.id, &account.id, &admin.acts(clock.now())).await;
    deleted.map_err(|error| refused(&error))?;
    Ok(Json(Deleted::service_account(account.id.as_str())).into_response())
}

pub(in crate::api) async fn create_key(
    admin: Admin,
    State(accounts): State<Arc<Accounts>>,
    State(clock): State<Clock>,
    InAccount { project, account }: InAccount,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let NewKey { name, terms, .. } = NewKey::of_account(&body)?;
    let by = admin.acts(clock.now());
    let created = accounts.create_key(&project.id, &account.id, &name, terms.from(by.at), &by).await;
    let (key, plain) = created.map_err(|error| refused(&error))?;
    Ok(with_secret(&AccountKeyCreated::new(&key, plain.reveal())))
}

#[cfg(test)]
mod tests;
