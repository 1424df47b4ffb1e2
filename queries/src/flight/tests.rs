use std::net::SocketAddr;
use std::time::Duration;

use arrow::array::{AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionCancelQueryRequest, Any, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo, CommandStatementQuery, ProstMessageExt, SqlInfo,
};
use arrow_flight::{Action, CancelFlightInfoRequest, Criteria, Empty, FlightDescriptor, FlightInfo, Ticket};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::sync::oneshot;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::client::{Client, ClientError};
use super::*;
use crate::auth::{AuthConfig, TOKEN_KEY_LEN};
use crate::session::SqlLimits;
use crate::session::fixture::{service_with, tenant};

const PASSWORD: &str = "correct horse";

/// A server on a free port; it stops when this is dropped.
struct TestServer {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl TestServer {
    async fn start() -> Self {
        Self::start_with(FlightConfig::default(), SqlLimits::default()).await
    }

    async fn start_with(config: FlightConfig, limits: SqlLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let auth = Authenticator::new(AuthConfig {
            check: Arc::new(|user, password| user == "admin" && password == PASSWORD),
            tenant: tenant(),
            token_key: [3; TOKEN_KEY_LEN],
            insecure: false,
        });
        let sql = Arc::new(service_with(limits));
        tokio::spawn(serve(config, listener, sql, Arc::new(auth), async {
            let _ = stopped.await;
        }));
        Self { address, _stop: stop }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client that has not logged in.
    async fn stranger(&self) -> FlightSqlServiceClient<Channel> {
        FlightSqlServiceClient::new(Endpoint::from_shared(self.url()).unwrap().connect().await.unwrap())
    }

    async fn client(&self) -> FlightSqlServiceClient<Channel> {
        let mut client = self.stranger().await;
        client.handshake("admin", PASSWORD).await.unwrap();
        client
    }
}

/// All rows behind an answer, which must have exactly the announced schema and one endpoint.
async fn fetch(client: &mut FlightSqlServiceClient<Channel>, info: FlightInfo) -> Vec<RecordBatch> {
    let announced = info.clone().try_decode_schema().unwrap();
    assert_eq!(info.endpoint.len(), 1, "some clients read one endpoint only");
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let mut batches = Vec::new();
    while let Some(batch) = rows.try_next().await.unwrap() {
        batches.push(batch);
    }
    assert_eq!(
        rows.schema().unwrap().as_ref(),
        &announced,
        "the announced schema is the streamed one"
    );
    batches
}

fn n_rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

fn texts(batches: &[RecordBatch], column: &str) -> Vec<String> {
    batches
        .iter()
        .flat_map(|b| {
            b.column_by_name(column)
                .unwrap()
                .as_string::<i32>()
                .iter()
                .map(|t| t.unwrap().to_owned())
        })
        .collect()
}

fn code<T>(result: Result<T, arrow_flight::error::FlightError>) -> (Code, String) {
    match result {
        Err(arrow_flight::error::FlightError::Tonic(status)) => (status.code(), status.message().to_owned()),
        Err(other) => panic!("no status: {other}"),
        Ok(_) => panic!("it went well"),
    }
}

#[tokio::test]
async fn the_client_of_the_command_line_runs_statements() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server.url(), "admin", PASSWORD).await.unwrap();
    let answer = client
        .query("SELECT hardware_id, value FROM latest WHERE unit = 'kW' ORDER BY hardware_id")
        .await
        .unwrap();
    assert_eq!(texts(&answer.batches, "hardware_id"), ["m-0", "m-1", "m-2", "m-3"]);
    let empty = client.query("SELECT * FROM acknowledgements").await.unwrap();
    assert_eq!((n_rows(&empty.batches), empty.schema.fields().len()), (0, 7));
    let error = client.query("SELECT nothing FROM latest").await.unwrap_err().to_string();
    assert!(error.contains("nothing"), "{error}");
    let refused = Client::connect(&server.url(), "admin", "wrong").await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Login { reason } if reason == "wrong user or password"),
        "{refused:?}"
    );
    let nobody = Client::connect("http://127.0.0.1:9", "admin", "").await.unwrap_err();
    assert!(matches!(nobody, ClientError::Connect { .. }), "{nobody:?}");
}

#[tokio::test]
async fn every_call_wants_credentials_and_takes_both_kinds() {
    let server = TestServer::start().await;
    let mut stranger = server.stranger().await;
    let (code_, text) = code(stranger.execute("SELECT 1".to_owned(), None).await);
    assert_eq!(code_, Code::Unauthenticated);
    assert!(text.starts_with("no credentials were sent"), "{text}");
    let inner = stranger.inner_mut();
    let unauthenticated = Code::Unauthenticated;
    assert_eq!(inner.list_flights(Criteria::default()).await.err().unwrap().code(), unauthenticated);
    assert_eq!(inner.list_actions(Empty {}).await.err().unwrap().code(), unauthenticated);
    assert_eq!(inner.do_get(Ticket::default()).await.err().unwrap().code(), unauthenticated);
    assert_eq!(
        inner.get_schema(FlightDescriptor::default()).await.err().unwrap().code(),
        unauthenticated
    );
    assert_eq!(inner.do_action(Action::default()).await.err().unwrap().code(), unauthenticated);
    assert_eq!(inner.do_put(futures::stream::empty()).await.err().unwrap().code(), unauthenticated);

    use base64::Engine;
    let basic = format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(format!("admin:{PASSWORD}"))
    );
    stranger.set_header("authorization", basic);
    let info = stranger.execute("SELECT 1".to_owned(), None).await.unwrap();
    assert_eq!(n_rows(&fetch(&mut stranger, info).await), 1);
    stranger.set_header("authorization", "Bearer nonsense");
    assert_eq!(code(stranger.execute("SELECT 1".to_owned(), None).await).0, Code::Unauthenticated);
}

#[tokio::test]
async fn the_oldest_handshake_works_too() {
    let server = TestServer::start().await;
    let mut stranger = server.stranger().await;
    let credentials = arrow_flight::BasicAuth {
        username: "admin".to_owned(),
        password: PASSWORD.to_owned(),
    };
    let message = arrow_flight::HandshakeRequest {
        protocol_version: 0,
        payload: credentials.encode_to_vec().into(),
    };
    let mut answer = stranger
        .inner_mut()
        .handshake(futures::stream::iter([message]))
        .await
        .unwrap()
        .into_inner();
    let token = answer.next().await.unwrap().unwrap().payload;
    let mut request = tonic::Request::new(Criteria::default());
    request
        .metadata_mut()
        .insert_bin("auth-token-bin", tonic::metadata::MetadataValue::from_bytes(&token));
    assert!(stranger.inner_mut().list_flights(request).await.is_ok());
}

#[tokio::test]
async fn statements_give_the_announced_schema_with_plain_types() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for sql in [
        "SELECT * FROM measurements",
        "SELECT * FROM load_profile_15m",
        "SELECT arrow_cast(hardware_id, 'Utf8View') AS a, arrow_cast(unit, 'Dictionary(Int32, Utf8)') AS b, make_array(unit) AS c FROM latest",
        "SELECT hardware_id, max(value) FROM measurements GROUP BY hardware_id HAVING max(value) > 1e9",
        "SELECT l.value, m.value FROM latest l LEFT JOIN measurements m ON l.value = m.value + 1e6",
        "SELECT NULL",
        "SHOW TABLES",
    ] {
        let info = client.execute(sql.to_owned(), None).await.unwrap();
        let schema = info.clone().try_decode_schema().unwrap();
        for field in schema.fields() {
            assert!(
                !matches!(field.data_type(), DataType::Utf8View | DataType::Dictionary(..)),
                "{sql}: {field}"
            );
        }
        fetch(&mut client, info).await;
    }
}

#[tokio::test]
async fn prepared_statements_take_parameters_again_and_again() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let sql = "SELECT count(*) AS n FROM measurements WHERE hardware_id = ? AND value > ?";
    let mut statement = client.prepare(sql.to_owned(), None).await.unwrap();
    let parameters = statement.parameter_schema().unwrap();
    assert_eq!(
        parameters,
        &Schema::new(vec![
            Field::new("$1", DataType::Utf8, true),
            Field::new("$2", DataType::Float64, true)
        ])
    );
    assert_eq!(statement.dataset_schema().unwrap().field(0).name(), "n");
    for (hardware_id, more_than, expected) in [("m-1", 100.0, 4), ("m-1", -1.0, 8), ("nobody", 0.0, 0)] {
        let values = RecordBatch::try_from_iter([
            ("a", Arc::new(StringArray::from(vec![hardware_id])) as _),
            ("b", Arc::new(Float64Array::from(vec![more_than])) as _),
        ]);
        statement.set_parameters(values.unwrap()).unwrap();
        let info = statement.execute().await.unwrap();
        let batches = fetch(&mut client, info).await;
        assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), expected, "{hardware_id}");
    }
    statement.close().await.unwrap();
}

#[tokio::test]
async fn several_rows_of_values_are_several_runs() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut statement = client
        .prepare("SELECT hardware_id, value FROM latest WHERE hardware_id = $1".to_owned(), None)
        .await
        .unwrap();
    let values = RecordBatch::try_from_iter([("id", Arc::new(StringArray::from(vec!["m-3", "nobody", "m-1"])) as _)]);
    statement.set_parameters(values.unwrap()).unwrap();
    let info = statement.execute().await.unwrap();
    assert_eq!(texts(&fetch(&mut client, info).await, "hardware_id"), ["m-3", "m-3", "m-1", "m-1"]);
}

#[tokio::test]
async fn what_is_wrong_is_said_plainly() {
    let server = TestServer::start_with(
        FlightConfig::default(),
        SqlLimits {
            rows: Some(5),
            ..SqlLimits::default()
        },
    )
    .await;
    let mut client = server.client().await;
    let (kind, text) = code(client.execute("SELEC 1".to_owned(), None).await);
    assert_eq!(kind, Code::InvalidArgument, "{text}");
    let (kind, text) = code(client.execute("DROP TABLE latest".to_owned(), None).await);
    assert_eq!(
        (kind, text.starts_with("SQL here is read only")),
        (Code::PermissionDenied, true),
        "{text}"
    );
    let (kind, text) = code(client.execute("SELECT * FROM latest WHERE value = ?".to_owned(), None).await);
    assert_eq!((kind, text.contains("prepare")), (Code::InvalidArgument, true), "{text}");
    let (kind, _) = code(client.execute_update("INSERT INTO latest VALUES (1)".to_owned(), None).await);
    assert_eq!(kind, Code::PermissionDenied);
    let info = client.execute("SELECT * FROM measurements".to_owned(), None).await.unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let (kind, text) = code(
        async {
            while rows.try_next().await?.is_some() {}
            Ok(())
        }
        .await,
    );
    assert_eq!((kind, text.contains("more than 5 rows")), (Code::ResourceExhausted, true), "{text}");
    let forged = arrow_flight::sql::TicketStatementQuery {
        statement_handle: "SELECT 1".into(),
    };
    let (kind, _) = code(client.do_get(Ticket::new(forged.as_any().encode_to_vec())).await);
    assert_eq!(kind, Code::InvalidArgument);
    let (kind, _) = code(client.do_get(Ticket::new("nonsense")).await);
    assert_eq!(kind, Code::InvalidArgument);
}

#[tokio::test]
async fn catalogs_schemas_tables_and_types_are_listed() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = client.get_catalogs().await.unwrap();
    assert_eq!(texts(&fetch(&mut client, info).await, "catalog_name"), ["flexmeter"]);
    let info = client
        .get_db_schemas(CommandGetDbSchemas {
            catalog: Some("flexmeter".to_owned()),
            db_schema_filter_pattern: None,
        })
        .await
        .unwrap();
    assert_eq!(
        texts(&fetch(&mut client, info).await, "db_schema_name"),
        ["default", "information_schema"]
    );
    let info = client.get_table_types().await.unwrap();
    assert_eq!(texts(&fetch(&mut client, info).await, "table_type"), ["TABLE", "VIEW"]);

    let all = CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: None,
        table_name_filter_pattern: None,
        table_types: vec![],
        include_schema: false,
    };
    let ask = |change: fn(&mut CommandGetTables)| {
        let mut query = all.clone();
        change(&mut query);
        query
    };
    for (query, expected) in [
        (
            ask(|q| q.table_types = vec!["TABLE".to_owned()]),
            vec![
                "acknowledgements",
                "alerts",
                "areas",
                "branches",
                "faults",
                "grid_quality",
                "grid_state",
                "latest",
                "load_profile_15m",
                "measurements",
                "meters",
                "nodes",
                "outages",
                "reconfigurations",
                "rejections",
                "reliability",
                "switch_history",
                "switches",
            ],
        ),
        (
            ask(|q| q.table_name_filter_pattern = Some("m%s".to_owned())),
            vec!["measurements", "meters"],
        ),
        (
            ask(|q| (q.db_schema_filter_pattern, q.table_name_filter_pattern) = (Some("def_ult".to_owned()), Some("l%".to_owned()))),
            vec!["latest", "load_profile_15m"],
        ),
        (ask(|q| q.catalog = Some("elsewhere".to_owned())), vec![]),
    ] {
        let info = client.get_tables(query.clone()).await.unwrap();
        assert_eq!(texts(&fetch(&mut client, info).await, "table_name"), expected, "{query:?}");
    }

    let query = ask(|q| (q.include_schema, q.table_name_filter_pattern) = (true, Some("latest".to_owned())));
    let info = client.get_tables(query).await.unwrap();
    let batches = fetch(&mut client, info).await;
    let bytes = batches[0]
        .column_by_name("table_schema")
        .unwrap()
        .as_binary::<i32>()
        .value(0)
        .to_vec();
    let schema = Schema::try_from(arrow_flight::IpcMessage(bytes.into())).unwrap();
    let value = schema.field_with_name("value").unwrap();
    assert_eq!(value.metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"], "DOUBLE");
    assert!(value.metadata()["ARROW:FLIGHT:SQL:REMARKS"].contains("unit"));
}

#[tokio::test]
async fn information_about_the_server_and_its_types_is_complete() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = client.get_sql_info(vec![]).await.unwrap();
    assert!(n_rows(&fetch(&mut client, info).await) > 80);
    let info = client
        .get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerReadOnly])
        .await
        .unwrap();
    assert_eq!(n_rows(&fetch(&mut client, info).await), 2);
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    assert!(n_rows(&fetch(&mut client, info).await) >= 6);
}

#[tokio::test]
async fn keys_are_empty_answers() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let (catalog, db_schema, table) = (None, None, "latest".to_owned());
    let info = client
        .get_primary_keys(CommandGetPrimaryKeys {
            catalog: catalog.clone(),
            db_schema: db_schema.clone(),
            table: table.clone(),
        })
        .await;
    assert_eq!(n_rows(&fetch(&mut client, info.unwrap()).await), 0);
    let info = client
        .get_exported_keys(CommandGetExportedKeys {
            catalog: catalog.clone(),
            db_schema: db_schema.clone(),
            table: table.clone(),
        })
        .await;
    assert_eq!(n_rows(&fetch(&mut client, info.unwrap()).await), 0);
    let info = client
        .get_imported_keys(CommandGetImportedKeys {
            catalog,
            db_schema,
            table: table.clone(),
        })
        .await;
    assert_eq!(n_rows(&fetch(&mut client, info.unwrap()).await), 0);
    let query = CommandGetCrossReference {
        pk_table: table.clone(),
        fk_table: table,
        ..CommandGetCrossReference::default()
    };
    let info = client.get_cross_reference(query).await.unwrap();
    assert_eq!(n_rows(&fetch(&mut client, info).await), 0);
}

#[tokio::test]
async fn a_running_statement_can_be_cancelled() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let endless = "SELECT * FROM generate_series(1, 1000000000000)".to_owned();
    for old_way in [false, true] {
        let info = client.execute(endless.clone(), None).await.unwrap();
        let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
        rows.try_next().await.unwrap().unwrap();
        let action = if old_way {
            let body = ActionCancelQueryRequest {
                info: info.encode_to_vec().into(),
            }
            .as_any()
            .encode_to_vec();
            Action {
                r#type: "CancelQuery".to_owned(),
                body: body.into(),
            }
        } else {
            Action {
                r#type: "CancelFlightInfo".to_owned(),
                body: CancelFlightInfoRequest::new(info).encode_to_vec().into(),
            }
        };
        let answer = client.do_action(action.into_request_with(&client_token(&client))).await;
        assert!(answer.is_ok(), "{:?}", answer.err());
        let end = tokio::time::timeout(Duration::from_secs(20), async {
            while rows.try_next().await?.is_some() {}
            Ok(())
        });
        assert_eq!(code(end.await.expect("the statement goes on")).0, Code::Cancelled);
    }
}

fn client_token(client: &FlightSqlServiceClient<Channel>) -> String {
    client.token().cloned().unwrap()
}

trait WithToken: Sized {
    fn into_request_with(self, token: &str) -> tonic::Request<Self> {
        let mut request = tonic::Request::new(self);
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }
}
impl WithToken for Action {}
impl WithToken for FlightDescriptor {}
impl WithToken for Empty {}

#[tokio::test]
async fn sessions_have_options_and_can_be_closed() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let token = client_token(&client);
    for name in ["GetSessionOptions", "SetSessionOptions", "CloseSession"] {
        let action = Action {
            r#type: name.to_owned(),
            body: Vec::new().into(),
        };
        let answer = client
            .inner_mut()
            .do_action(action.into_request_with(&token))
            .await
            .unwrap()
            .into_inner()
            .next()
            .await;
        let body = answer.unwrap().unwrap().body;
        match name {
            "GetSessionOptions" => {
                assert!(
                    options::GetSessionOptionsResult::decode(body)
                        .unwrap()
                        .session_options
                        .contains_key("catalog")
                );
            }
            "SetSessionOptions" => assert!(options::SetSessionOptionsResult::decode(body).unwrap().errors.is_empty()),
            _ => assert_eq!(
                options::CloseSessionResult::decode(body).unwrap().status,
                options::CloseStatus::Closed as i32
            ),
        }
    }
    let unknown = Action {
        r#type: "MakeCoffee".to_owned(),
        body: Vec::new().into(),
    };
    assert_eq!(
        client
            .inner_mut()
            .do_action(unknown.into_request_with(&token))
            .await
            .err()
            .unwrap()
            .code(),
        Code::InvalidArgument
    );
    let actions: Vec<_> = client
        .inner_mut()
        .list_actions(Empty {}.into_request_with(&token))
        .await
        .unwrap()
        .into_inner()
        .try_collect()
        .await
        .unwrap();
    assert!(actions.iter().any(|a| a.r#type == "CloseSession"));
}

#[tokio::test]
async fn get_schema_answers_without_running() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let token = client_token(&client);
    let command = CommandStatementQuery {
        query: "SELECT value FROM latest".to_owned(),
        transaction_id: None,
    };
    let descriptor = FlightDescriptor::new_cmd(Any::pack(&command).unwrap().encode_to_vec());
    let result = client
        .inner_mut()
        .get_schema(descriptor.into_request_with(&token))
        .await
        .unwrap()
        .into_inner();
    let schema = Schema::try_from(&result).unwrap();
    assert_eq!(schema.field(0).name(), "value");
}

#[tokio::test]
async fn tls_keeps_strangers_and_plain_text_out() {
    // An error means that another test has installed it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (certificate, key) = (
        include_bytes!("../../test_data/tls/certificate.pem"),
        include_bytes!("../../test_data/tls/key.pem"),
    );
    let tls = FlightTls {
        certificate_pem: certificate.to_vec(),
        key_pem: key.to_vec(),
        client_ca_pem: None,
    };
    let server = TestServer::start_with(FlightConfig { tls: Some(tls) }, SqlLimits::default()).await;
    let url = format!("https://localhost:{}", server.address.port());
    let mut client = Client::connect_trusting(&url, "admin", PASSWORD, Some(certificate)).await.unwrap();
    assert_eq!(n_rows(&client.query("SELECT * FROM latest").await.unwrap().batches), 8);
    assert!(
        Client::connect(&url, "admin", PASSWORD).await.is_err(),
        "the certificate is not trusted"
    );
    assert!(Client::connect(&server.url(), "admin", PASSWORD).await.is_err(), "plain text");
}
