//! Which call stands under which route, and how any call is read, carried out and answered.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use axum::{Json, Router};
use futures::stream;
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::wire::{ACTOR, EXIT, FRAMES, Frame, Log, Wire};
use super::{Life, Served, Unanswered};
use crate::answer::Answer;
use crate::call::{Call, Method, Voice, With as _};
use crate::commands::{
    check, events, explain, pause, ps, recover, resolve, rollout, run, settings, snapshot, summary,
    tenant, update,
};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};

/// Largest body that is read.
const BODY_MAX: usize = 64 << 10;

/// Every route.
pub(super) fn router(served: Served) -> Router {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready));
    let router = at::<summary::Show>(router);
    let router = at::<ps::List>(router);
    let router = at::<ps::Show>(router);
    let router = at::<explain::Explain>(router);
    let router = at::<check::Check>(router);
    let router = at::<run::Cycle>(router);
    let router = at::<recover::Recover>(router);
    let router = at::<update::Update>(router);
    let router = at::<update::UpdateOne>(router);
    let router = at::<resolve::Resolve>(router);
    let router = rollout::calls(router);
    let router = at::<pause::Pause>(router);
    let router = at::<pause::Resume>(router);
    let router = at::<tenant::List>(router);
    let router = at::<tenant::Show>(router);
    let router = at::<tenant::Set>(router);
    let router = at::<settings::Show>(router);
    let router = at::<settings::Set>(router);
    let router = snapshot::calls(router);
    let router = at::<events::Page>(router);
    router
        .fallback(async |uri: Uri| {
            let detail = format!("there is nothing at {}", uri.path());
            Problem::new(StatusCode::NOT_FOUND, "no_such_route", Exit::Usage, detail)
        })
        .method_not_allowed_fallback(async || {
            let detail = "this can be asked for with another method";
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Problem::new(status, "wrong_method", Exit::Usage, detail)
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(served)
}

/// Adds a call at its route.
pub(crate) fn at<C: Call>(router: Router<Served>) -> Router<Served> {
    let method = match C::ROUTE.method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Delete => MethodFilter::DELETE,
    };
    router.route(C::ROUTE.path, on(method, answer::<C>))
}

/// Takes the fields that are part of a path out of a call, and puts them there.
pub(super) fn take_parameters(template: &str, call: &mut Value) -> Outcome<String> {
    let mut path = String::new();
    for part in template.split('/').skip(1) {
        path.push('/');
        let name = part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'));
        match name {
            None => path.push_str(part),
            Some(name) => {
                let field = call.as_object_mut().and_then(|fields| fields.remove(name));
                let field = field.as_ref().and_then(Value::as_str);
                let field = field.ok_or_else(|| {
                    Failure::new(Exit::Failed, format!("{template} lacks its {name}"))
                })?;
                // Ids and names of instances and tenants; whatever else is in them must not end the part.
                let bytes = field.bytes().map(|byte| match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                        char::from(byte).to_string()
                    }
                    other => format!("%{other:02X}"),
                });
                path.extend(bytes);
            }
        }
    }
    Ok(path)
}

async fn ready(State(served): State<Served>) -> Response {
    let state = *served.state.borrow();
    let database = served.fleet.ports().settings.settings().await.is_ok();
    let works = *served.life.borrow() == Life::Works;
    let body = json!({
        "recovered": state.recovered, "engine": state.engine, "database": database, "stopping": !works,
    });
    let status = match state.recovered && state.engine && database && works {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(body)).into_response()
}

/// Any call: read, carried out to its end whether or not the client stays, answered.
async fn answer<C: Call>(
    State(served): State<Served>,
    Path(path): Path<BTreeMap<String, String>>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let detail = format!(
                "{}: at most {BODY_MAX} bytes are read",
                rejection.body_text()
            );
            return Problem::new(rejection.status(), "bad_body", Exit::Usage, detail)
                .into_response();
        }
    };
    let call = match read::<C>(path, query, &body) {
        Ok(call) => call,
        Err(failure) => {
            let status = StatusCode::BAD_REQUEST;
            let detail = failure.chain();
            return Problem::new(status, "bad_request", Exit::Usage, detail).into_response();
        }
    };
    let actor = headers.get(ACTOR).map_or_else(
        || "api".to_owned(),
        |actor| String::from_utf8_lossy(actor.as_bytes()).into_owned(),
    );
    let frames = headers
        .get(header::ACCEPT)
        .is_some_and(|accept| accept.as_bytes() == FRAMES.as_bytes());
    if frames {
        return with_frames(served, actor, call);
    }
    let task = tokio::spawn(async move { carry_out(&served, actor, Log::voice(), call).await });
    match task.await {
        Ok(Ok(answer)) => document(&answer),
        Ok(Err(failure)) => Problem::from(&failure).into_response(),
        Err(_) => defect().into_response(),
    }
}

/// Answers with what is said meanwhile, and the answer at the end.
fn with_frames<C: Call>(served: Served, actor: String, call: C) -> Response {
    let (wire, frames) = Wire::new();
    tokio::spawn(async move {
        let voice: Arc<dyn Voice> = Arc::new(wire.clone());
        let last = {
            // Before anything is done, so that nothing of it is missed.
            let heard = served.hub.listen();
            let mut carried_out = tokio::spawn({
                let served = served.clone();
                async move { carry_out(&served, actor, voice, call).await }
            });
            // What was asked for goes on without whoever asked; what was only to be seen does not.
            let nobody_looks = async {
                if C::ROUTE.method != Method::Get {
                    std::future::pending::<()>().await;
                }
                wire.closed().await;
            };
            let heard = async {
                if !C::FOLLOWS_ROLLOUTS {
                    std::future::pending::<()>().await;
                }
                heard.pass_on(&wire).await;
            };
            tokio::select! {
                result = &mut carried_out => match result {
                    Ok(Ok(answer)) => Frame::Answer(Box::new(answer)),
                    Ok(Err(failure)) => Frame::Problem(Problem::from(&failure)),
                    Err(_) => Frame::Problem(defect()),
                },
                () = heard => Frame::Problem(defect()),
                () = nobody_looks => {
                    carried_out.abort();
                    return;
                }
            }
        };
        wire.end(last).await;
    });
    let lines = stream::unfold(frames, |mut frames| async move {
        let frame = frames.recv().await?;
        // Frames are plain data, which always has a JSON form.
        let mut line = serde_json::to_vec(&frame).unwrap_or_default();
        line.push(b'\n');
        Some((Ok::<_, Infallible>(line), frames))
    });
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(FRAMES));
    ([kind], Body::from_stream(lines)).into_response()
}

/// Carries out a call once recovery is over, or says that the daemon ends.
async fn carry_out<C: Call>(
    served: &Served,
    actor: String,
    voice: Arc<dyn Voice>,
    call: C,
) -> Outcome<Answer> {
    let mut life = served.life.clone();
    let mut state = served.state.clone();
    let work = async {
        if C::ROUTE.method != Method::Get {
            if *served.life.borrow() != Life::Works {
                return Err(Failure::new(Exit::NotNow, "the daemon is stopping"));
            }
            // Before any change: what a dead daemon left.
            let _ = state.wait_for(|state| state.recovered).await;
        }
        call.carry_out(&C::With::of(served, actor, voice)).await
    };
    tokio::select! {
        result = work => result,
        _ = life.wait_for(|life| *life == Life::Over) => {
            let cut = Unanswered("the daemon stopped before it had ended".to_owned());
            Err(Failure::from(cut).ends(Exit::NotNow))
        }
    }
}

fn defect() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "defect",
        Exit::Failed,
        "a defect in fleet stopped it; the daemon's log says more, and what had begun is in the journal",
    )
}

/// An answer as the document that `--output json` prints.
fn document(answer: &Answer) -> Response {
    let exit = HeaderValue::from(u16::from(answer.exit.code()));
    ([(EXIT, exit)], Json(answer.document())).into_response()
}

/// A call from path, query and body.
fn read<C: Call>(
    path: BTreeMap<String, String>,
    query: Vec<(String, String)>,
    body: &[u8],
) -> Outcome<C> {
    let mut fields = match body {
        [] => Map::new(),
        body => match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => {
                return Err(Failure::new(
                    Exit::Usage,
                    "expected a JSON object as the body",
                ));
            }
            Err(error) => return Err(error).or_exit(Exit::Usage, "the body is no JSON"),
        },
    };
    for (name, values) in by_name(query) {
        fields.insert(name, values);
    }
    for (name, value) in path {
        fields.insert(name, Value::String(value));
    }
    serde_json::from_value(Value::Object(fields)).or_exit(Exit::Usage, "the request cannot be used")
}

/// A query as fields: what is given once is a text, what is given more than once is a list.
fn by_name(query: Vec<(String, String)>) -> BTreeMap<String, Value> {
    let mut fields: BTreeMap<String, Value> = BTreeMap::new();
    for (name, value) in query {
        let value = Value::String(value);
        match fields.get_mut(&name) {
            None => {
                fields.insert(name, value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_takes_apart_the_server_puts_together() {
        let call = pause::Pause {
            reason: "why not".to_owned(),
        };
        let mut fields = serde_json::to_value(&call).unwrap();
        fields["id"] = json!("a b/../c");
        let path = take_parameters("/api/v1/things/{id}/pause", &mut fields).unwrap();
        assert_eq!(path, "/api/v1/things/a%20b%2F..%2Fc/pause");
        assert_eq!(fields, json!({ "reason": "why not" }));
        let read = read::<pause::Pause>(BTreeMap::new(), Vec::new(), fields.to_string().as_bytes());
        assert_eq!(read.unwrap().reason, call.reason);
    }

    #[track_caller]
    fn check_refused(body: &str, says: &str) {
        let refused = read::<pause::Pause>(BTreeMap::new(), Vec::new(), body.as_bytes());
        let chain = refused
            .err()
            .map(|failure| failure.chain())
            .unwrap_or_default();
        assert!(chain.contains(says), "{chain}");
    }

    #[test]
    fn a_bad_request_is_told_what_was_expected() {
        check_refused("{", "the body is no JSON");
        check_refused("[]", "expected a JSON object");
        check_refused("{}", "missing field `reason`");
        check_refused("{\"reason\":1}", "expected a string");
        check_refused(
            "{\"reason\":\"x\",\"raeson\":1}",
            "unknown field `raeson`, expected `reason`",
        );
    }

    #[track_caller]
    fn plan_asked(query: &[(&str, &str)]) -> Result<Value, String> {
        let query = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let read = read::<rollout::Preview>(BTreeMap::new(), query.collect(), b"");
        let read = read.map_err(|failure| failure.chain())?;
        serde_json::to_value(read).map_err(|error| error.to_string())
    }

    #[test]
    fn a_query_asks_for_a_plan_as_the_command_does() {
        let asked = plan_asked(&[
            ("image", "registry.example/app:2"),
            ("strategy", "rolling"),
            ("batch_percent", "33"),
            ("pause", "90s"),
            ("max_concurrent", "4"),
            ("abort_on_failures", "2"),
            ("tenant", "acme"),
            ("tenant", "bolt"),
            ("override_window", "true"),
        ]);
        assert_eq!(
            asked,
            Ok(json!({
                "image": "registry.example/app:2",
                "strategy": "rolling",
                "batch_percent": 33,
                "batch_count": null,
                "pause": "90000ms",
                "max_concurrent": 4,
                "abort_on_failures": 2,
                "tenants": ["acme", "bolt"],
                "override_window": true,
            }))
        );
        let one = plan_asked(&[("tenants", "acme")]).unwrap();
        assert_eq!(one["tenants"], json!(["acme"]));
        for wrong in [
            ("batch_percent", "some"),
            ("bacth_percent", "3"),
            ("strategy", "all"),
        ] {
            let refused = plan_asked(&[wrong]).unwrap_err();
            assert!(refused.contains("cannot be used"), "{refused}");
        }
    }
}
