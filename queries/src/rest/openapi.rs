//! `GET /api/openapi.json`: the interface as OpenAPI 3.1, made from the handlers themselves.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use flexmeter_model::Identifier;
use flexmeter_model::outcome::ReasonCode;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::ArrayBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Object, ObjectBuilder, OpenApi as Document, Ref, RefOr, Required, ResponseBuilder, Type};

use super::accept::Format;
use super::guard::TENANT_HEADER;
use super::problem::{self, PROBLEM_JSON, ProblemSchema};
use super::{Counter, page};

/// Everything below this path needs credentials and belongs to a tenant.
const PROTECTED: &str = "/api/v1/";
/// The one exception.
const LOGIN: &str = "/api/v1/login";

/// What the handlers do not say themselves.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Flexmeter",
        description = "Smart-meter data: what every device said last, its readings and load profile, what was rejected, the state of the grid, its outages, faults and reconfigurations, and SQL over all of it. \
            Times are RFC 3339 with a zone; units are named beside the values. Errors are problem details (RFC 9457) with a stable `type` and a `trace_id`."
    ),
    components(schemas(
        ProblemSchema,
        super::stream::LatestEvent,
        super::stream::OutageEvent,
        super::stream::ReconfigurationEvent,
        super::stream::FaultEvent,
        super::stream::EstimateEvent
    )),
    tags(
        (name = "devices", description = "Devices, their readings and their load profiles"),
        (name = "live", description = "What is true right now"),
        (name = "grid", description = "The grid: its estimated state, switches, outages, faults and reconfigurations"),
        (name = "rejections", description = "What was not accepted, and why"),
        (name = "sql", description = "SQL over everything"),
        (name = "access", description = "Tokens"),
        (name = "operation", description = "For those who run the server; open, without credentials"),
    )
)]
pub(super) struct Api;

/// Vocabularies that parameters take their values from, by the parameter's name.
fn vocabularies() -> [(&'static str, &'static str, Vec<&'static str>); 2] {
    [
        (
            "identifier",
            "Identifier",
            Identifier::ALL.iter().map(|identifier| identifier.name()).collect(),
        ),
        ("reason", "ReasonCode", ReasonCode::ALL.iter().map(|code| code.as_str()).collect()),
    ]
}

/// Adds to every operation what all of them have in common.
pub(super) fn complete(mut document: Document) -> Document {
    let components = document.components.get_or_insert_default();
    for (name, scheme) in [("basic", HttpAuthScheme::Basic), ("bearer", HttpAuthScheme::Bearer)] {
        components
            .security_schemes
            .insert(name.to_owned(), RefOr::T(SecurityScheme::Http(Http::new(scheme))));
    }
    for (_, schema, words) in vocabularies() {
        let words = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build();
        components.schemas.insert(schema.to_owned(), words.into());
    }
    // OpenAPI has no word for a parameter that takes the rest of the path; the router's is `{*area}`.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            complete_operation(path, operation);
        }
    }
    document
}

fn complete_operation(path: &str, operation: &mut Operation) {
    let problem = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .example(Some(problem::example()))
        .build();
    let failure = ResponseBuilder::new()
        .description("What went wrong")
        .content(PROBLEM_JSON, problem)
        .build();
    operation.responses.responses.insert("default".to_owned(), RefOr::T(failure));
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        let Some((_, schema, _)) = vocabularies().into_iter().find(|(name, ..)| *name == parameter.name) else {
            continue;
        };
        let one = Ref::from_schema_name(schema);
        let is_list = path == super::stream::PATH;
        parameter.schema = Some(if is_list {
            ArrayBuilder::new().items(one).build().into()
        } else {
            one.into()
        });
    }
    if let (LOGIN, Some(RefOr::T(body))) = (path, &mut operation.request_body) {
        // Basic credentials will do.
        body.required = Some(Required::False);
    }
    if !path.starts_with(PROTECTED) || path == LOGIN {
        return;
    }
    operation.security = Some(
        ["bearer", "basic"]
            .map(|name| SecurityRequirement::new::<_, [&str; 0], _>(name, []))
            .into(),
    );
    let tenant = ParameterBuilder::new()
        .name("X-Flexmeter-Tenant")
        .parameter_in(ParameterIn::Header)
        .description(Some("The tenant whose data to see, for administrators; without it the user's own"))
        .schema(Some(Object::with_type(Type::String)))
        .build();
    debug_assert!(tenant.name.eq_ignore_ascii_case(TENANT_HEADER));
    operation.parameters.get_or_insert_default().push(RefOr::T(tenant));
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem {
        get,
        put,
        post,
        delete,
        patch,
        ..
    } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// This interface as OpenAPI 3.1
#[utoipa::path(get, path = "/api/openapi.json", operation_id = "getOpenApi", tag = "operation", security(()),
    responses((status = 200, description = "The document", body = serde_json::Value)))]
pub(super) async fn openapi(State(counter): State<Arc<Counter>>) -> Response {
    page::document(Format::Json, counter.openapi.clone())
}
