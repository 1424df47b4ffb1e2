//! The door of `/api/v1`: who is it, and whose data does it want to see?

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use flexmeter_model::TenantId;

use super::Counter;
use super::problem::{Code, Problem};
use crate::auth::Principal;

/// Header with which an administrator chooses the tenant.
pub(super) const TENANT_HEADER: &str = "x-flexmeter-tenant";

/// Who asks, and in which tenant. Handlers of the protected routes take it as an extension; only [`admit`] puts it there.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) principal: Principal,
    pub(super) tenant: TenantId,
}

/// Middleware: no credentials, no entry.
pub(super) async fn admit(State(counter): State<Arc<Counter>>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let principal = authenticate(&counter, request.headers())?;
    let caller = caller(&counter, principal, request.headers())?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The principal behind the request's `Authorization` header.
pub(super) fn authenticate(counter: &Counter, headers: &HeaderMap) -> Result<Principal, Problem> {
    let header = match headers.get(header::AUTHORIZATION) {
        None => None,
        // A header we cannot read is no header we accept.
        Some(value) => Some(value.to_str().unwrap_or("")),
    };
    counter
        .state
        .auth
        .authorize(header)
        .map_err(|error| Problem::new(Code::Unauthorized, error.to_string()))
}

fn caller(counter: &Counter, mut principal: Principal, headers: &HeaderMap) -> Result<Caller, Problem> {
    if let Some(value) = headers.get(TENANT_HEADER) {
        let wanted = value.to_str().ok().and_then(|text| TenantId::new(text).ok());
        let known = wanted.filter(|tenant| *tenant == principal.tenant || counter.state.live.tenants().contains(tenant));
        principal.tenant = known.ok_or_else(|| {
            let text = String::from_utf8_lossy(value.as_bytes());
            Problem::new(Code::UnknownTenant, format!("{TENANT_HEADER}: there is no tenant {text:?}"))
        })?;
    }
    Ok(Caller {
        tenant: principal.tenant.clone(),
        principal,
    })
}
