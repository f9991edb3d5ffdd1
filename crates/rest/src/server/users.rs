//! `/v1/users`: who may come in beyond the socket. Whoever is at the socket may change it, being as good as the daemon.

use access::{Change, ErrorKind, Grant};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use machine::{Host, Reason};
use uuid::Uuid;

use super::{App, Refusal, blocking};
use crate::wire::{MachineGrant, NewUser, Problem, User, UserEdit, UserList};

impl From<access::Error> for Refusal {
    fn from(e: access::Error) -> Self {
        let reason = match e.kind() {
            ErrorKind::NotFound => Reason::NotFound,
            ErrorKind::AlreadyExists => Reason::AlreadyExists,
            ErrorKind::Invalid => Reason::InvalidArgument,
            ErrorKind::Conflict => Reason::Busy,
            ErrorKind::Store | ErrorKind::Key => Reason::Store,
        };
        let refusal = Self::new(reason, e.to_string());
        match e.hint_text() {
            Some(hint) => refusal.hint(hint),
            None => refusal,
        }
    }
}

/// Every user.
#[utoipa::path(get, path = "/v1/users", tag = "users", responses((status = 200, body = UserList)))]
pub(crate) async fn list(State(app): State<App>) -> Result<Json<UserList>, Refusal> {
    let users = app.users.clone();
    let listed = blocking(&app, move |_| Ok(users.list())).await??;
    Ok(Json(UserList { users: listed.into_iter().map(User::from).collect() }))
}

/// One user.
#[utoipa::path(get, path = "/v1/users/{user}", tag = "users", params(("user" = String, Path)),
    responses((status = 200, body = User), (status = 404, body = Problem)))]
pub(crate) async fn show(State(app): State<App>, Path(name): Path<String>) -> Result<Json<User>, Refusal> {
    let users = app.users.clone();
    Ok(Json(blocking(&app, move |_| Ok(users.get(&name))).await??.into()))
}

/// Adds a user.
#[utoipa::path(post, path = "/v1/users", tag = "users", request_body = NewUser,
    responses((status = 201, body = User), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn add(
    State(app): State<App>,
    body: Result<Json<NewUser>, JsonRejection>,
) -> Result<(StatusCode, Json<User>), Refusal> {
    let Json(new) = body?;
    let users = app.users.clone();
    let user = blocking(&app, move |host| {
        let change = change(host, new.edit)?;
        Ok(change.map(|change| users.add(&new.name, &change, jiff::Timestamp::now())))
    });
    Ok((StatusCode::CREATED, Json(user.await???.into())))
}

/// Changes a user.
#[utoipa::path(patch, path = "/v1/users/{user}", tag = "users", params(("user" = String, Path)),
    request_body = UserEdit, responses((status = 200, body = User), (status = 404, body = Problem)))]
pub(crate) async fn edit(
    State(app): State<App>,
    Path(name): Path<String>,
    body: Result<Json<UserEdit>, JsonRejection>,
) -> Result<Json<User>, Refusal> {
    let Json(edit) = body?;
    let users = app.users.clone();
    let user = blocking(&app, move |host| {
        let change = change(host, edit)?;
        Ok(change.map(|change| users.set(&name, &change)))
    });
    Ok(Json(user.await???.into()))
}

/// Removes a user.
#[utoipa::path(delete, path = "/v1/users/{user}", tag = "users", params(("user" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn remove(State(app): State<App>, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    let users = app.users.clone();
    blocking(&app, move |_| Ok(users.remove(&name))).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// The change that `edit` asks for: the outer failure is the host's, the inner one that of a grant's words.
fn change(host: &Host, edit: UserEdit) -> Result<Result<Change, access::Error>, machine::Error> {
    let mut machines = Vec::new();
    for MachineGrant { machine, grant } in edit.machines {
        let id = match (host.resolve(&machine), machine.parse::<Uuid>()) {
            (Ok(id), _) | (Err(_), Ok(id)) => id,
            (Err(e), Err(_)) => return Err(e),
        };
        match grant.parse() {
            Ok(grant) => machines.push((id, grant)),
            Err(e) => return Ok(Err(e)),
        }
    }
    let grant: Option<Grant> = match edit.grant.map(|words| words.parse()).transpose() {
        Ok(grant) => grant,
        Err(e) => return Ok(Err(e)),
    };
    Ok(Ok(Change {
        password: edit.password,
        ntlm: edit.ntlm,
        grant,
        machines,
        add_certificates: edit.add_certificates,
        remove_certificates: edit.remove_certificates,
        disabled: edit.disabled,
    }))
}
