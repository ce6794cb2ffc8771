use axum::http::HeaderValue;
use dozen_engine::{OutputStream, StepId, StepStarted};
use dozen_model::{ContainerId, Digest, ImageId};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;

fn step(id: usize, stage: &str, number: usize, count: usize, text: &str) -> BuildEvent {
    let stage = stage.to_owned();
    BuildEvent::Step(StepStarted {
        id: StepId(id),
        stage,
        number,
        count,
        total: 5,
        text: text.to_owned(),
        source: text.to_owned(),
    })
}

fn output(id: usize, text: &str) -> BuildEvent {
    BuildEvent::Output(StepId(id), OutputStream::Stdout, text.as_bytes().to_vec())
}

fn container() -> ContainerId {
    "ab".repeat(32).parse().unwrap()
}

fn image() -> ImageId {
    ImageId::new(Digest::from_sha256([0x12; 32]))
}

fn failed() -> BuildEvent {
    failed_in(None)
}

fn failed_in(step: Option<usize>) -> BuildEvent {
    BuildEvent::Failed(BuildFailure {
        message: "The command '/bin/sh -c false' returned a non-zero code: 3".into(),
        excerpt: Some("Dockerfile:2\n   2 | >>> RUN false\n".into()),
        hint: Some("look".into()),
        exit_code: Some(3),
        step: step.map(StepId),
    })
}

/// What the answer's body says of these events, a JSON document a line.
async fn told(teller: Teller, events: Vec<BuildEvent>) -> Vec<Value> {
    let (sender, receiver) = mpsc::channel(64);
    for event in events {
        sender.try_send(event).unwrap();
    }
    drop(sender);
    let told = Told { build: Build { events: receiver }, teller, said: Vec::new(), is_over: false };
    let body = Body::from_stream(told).collect().await.unwrap().to_bytes();
    std::str::from_utf8(&body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn classic(is_quiet: bool, events: Vec<BuildEvent>) -> Vec<Value> {
    told(Teller::Classic(Classic::new(is_quiet, vec!["web:1".into(), "web:latest".into()])), events).await
}

/// The classic stream's texts as a terminal would have them.
async fn text(events: Vec<BuildEvent>) -> String {
    classic(false, events).await.iter().filter_map(|line| line["stream"].as_str()).collect()
}

fn one_stage() -> Vec<BuildEvent> {
    vec![
        step(1, "0", 1, 3, "FROM busybox"),
        BuildEvent::Done(StepId(1)),
        step(2, "0", 2, 3, "RUN echo é"),
        BuildEvent::Running(StepId(2), container()),
        BuildEvent::Output(StepId(2), OutputStream::Stdout, b"\xc3".to_vec()),
        BuildEvent::Output(StepId(2), OutputStream::Stdout, b"\xa9\n".to_vec()),
        BuildEvent::Done(StepId(2)),
        step(3, "0", 3, 3, "CMD [\"sh\"]"),
        BuildEvent::Cached(StepId(3)),
        BuildEvent::Built(image()),
    ]
}

#[tokio::test]
async fn one_stage_is_told_as_docker_tells_it() {
    let said = classic(false, one_stage()).await;
    let texts: String = said.iter().filter_map(|line| line["stream"].as_str()).collect();
    assert_eq!(
        texts,
        "Step 1/5 : FROM busybox\nStep 2/5 : RUN echo é\n ---> Running in abababababab\né\n \
         ---> Removed intermediate container abababababab\nStep 3/5 : CMD [\"sh\"]\n ---> Using cache\n\
         Successfully built 121212121212\nSuccessfully tagged web:1\nSuccessfully tagged web:latest\n"
    );
    let aux: Vec<&Value> = said.iter().filter(|line| line.get("aux").is_some()).collect();
    assert_eq!(aux, [&json!({ "aux": { "ID": image().to_string() } })]);
}

#[tokio::test]
async fn quiet_is_the_id_alone() {
    assert_eq!(classic(true, one_stage()).await, [json!({ "stream": format!("{}\n", image()) })]);
    let mut events = one_stage();
    events.truncate(5);
    events.push(failed());
    let said = classic(true, events).await;
    assert!(said.len() > 2 && said[0]["stream"] == "Step 1/5 : FROM busybox\n", "{said:?}");
    assert_eq!(said.last().unwrap()["errorDetail"]["code"], 3);
}

#[tokio::test]
async fn stages_side_by_side_have_the_word_one_after_the_other() {
    let events = vec![
        step(1, "a", 1, 2, "FROM x AS a"),
        step(3, "b", 1, 2, "FROM y AS b"),
        BuildEvent::Done(StepId(3)),
        step(4, "b", 2, 2, "RUN b"),
        output(4, "from "),
        BuildEvent::Done(StepId(1)),
        step(2, "a", 2, 2, "RUN a"),
        output(2, "one\n"),
        output(4, "b\n"),
        output(2, "two\n"),
        BuildEvent::Done(StepId(2)),
        output(4, "more\n"),
        BuildEvent::Done(StepId(4)),
        step(5, "c", 1, 1, "FROM b AS c"),
        BuildEvent::Done(StepId(5)),
        BuildEvent::Built(image()),
    ];
    assert_eq!(
        text(events).await.split("Successfully").next().unwrap(),
        "Step 1/5 : FROM x AS a\nStep 2/5 : RUN a\none\ntwo\nStep 3/5 : FROM y AS b\nStep 4/5 : RUN b\nfrom b\nmore\n\
         Step 5/5 : FROM b AS c\n"
    );
}

#[tokio::test]
async fn a_stage_that_has_begun_to_speak_is_not_interrupted() {
    let events = vec![
        step(3, "b", 1, 2, "FROM y AS b"),
        step(1, "a", 1, 2, "FROM x AS a"),
        BuildEvent::Done(StepId(1)),
        BuildEvent::Done(StepId(3)),
        BuildEvent::Warning("mind".into()),
        step(4, "b", 2, 2, "RUN b"),
        output(4, "half a line"),
        BuildEvent::Warning("mind".into()),
        failed(),
    ];
    assert_eq!(
        text(events).await,
        "Step 3/5 : FROM y AS b\n ---> [Warning] mind\nStep 4/5 : RUN b\nhalf a line\n ---> [Warning] mind\n\
         Step 1/5 : FROM x AS a\nDockerfile:2\n   2 | >>> RUN false\n"
    );
}

#[tokio::test]
async fn the_step_that_has_failed_speaks_last() {
    let events = vec![
        step(1, "a", 1, 2, "FROM x AS a"),
        BuildEvent::Done(StepId(1)),
        step(3, "b", 1, 2, "FROM y AS b"),
        BuildEvent::Done(StepId(3)),
        step(4, "b", 2, 2, "RUN b"),
        step(5, "c", 1, 1, "FROM z AS c"),
        output(4, "why\n"),
        failed_in(Some(4)),
    ];
    assert_eq!(
        text(events).await,
        "Step 1/5 : FROM x AS a\nStep 5/5 : FROM z AS c\nStep 3/5 : FROM y AS b\nStep 4/5 : RUN b\nwhy\n\
         Dockerfile:2\n   2 | >>> RUN false\n"
    );
}

#[tokio::test]
async fn a_failure_is_told_with_its_status_and_a_build_that_just_ends_is_one() {
    let said = classic(false, vec![step(1, "0", 1, 1, "FROM x"), failed()]).await;
    let words = "The command '/bin/sh -c false' returned a non-zero code: 3";
    let want = json!({ "errorDetail": { "code": 3, "message": words }, "error": words, "hint": "look" });
    assert_eq!(*said.last().unwrap(), want);
    let said = classic(false, vec![step(1, "0", 1, 1, "FROM x")]).await;
    assert_eq!(said.last().unwrap()["error"], "the build ended without a result");
    assert!(said.last().unwrap()["errorDetail"].get("code").is_none());
}

#[tokio::test]
async fn our_own_stream_has_every_event() {
    let mut events = one_stage();
    events.insert(0, BuildEvent::Warning("w".into()));
    let said = told(Teller::Events(Events::default()), events).await;
    assert_eq!(said[0], json!({ "Warning": "w" }));
    let first = json!({ "ID": 1, "Stage": "0", "Number": 1, "Count": 3, "Total": 5, "Text": "FROM busybox" });
    assert_eq!(said[1], json!({ "Step": first }));
    assert_eq!(said[4], json!({ "Running": { "Step": 2, "Container": "ab".repeat(32) } }));
    assert_eq!(said[5], json!({ "Output": { "Step": 2, "Stream": "stdout", "Text": "é\n" } }));
    assert_eq!(said[said.len() - 2..], [json!({ "Cached": 3 }), json!({ "Built": image().to_string() })]);
    let said = told(Teller::Events(Events::default()), vec![failed_in(Some(2))]).await;
    assert_eq!((&said[0]["Failed"]["ExitCode"], &said[0]["Failed"]["Hint"]), (&json!(3), &json!("look")));
    assert_eq!(said[0]["Failed"]["Step"], 2);
}

#[tokio::test]
async fn a_client_that_goes_stops_the_build() {
    let (sender, receiver) = mpsc::channel(64);
    sender.try_send(step(1, "0", 1, 1, "FROM x")).unwrap();
    let teller = Teller::Events(Events::default());
    let mut body =
        Body::from_stream(Told { build: Build { events: receiver }, teller, said: Vec::new(), is_over: false });
    body.frame().await.unwrap().unwrap();
    assert!(!sender.is_closed());
    drop(body);
    sender.closed().await;
}

#[test]
fn who_accepts_events_gets_them() {
    let wants = |text: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(text));
        events::are_wanted(&headers)
    };
    assert!(
        wants("application/vnd.dozen.build-events.v1+json")
            && wants("text/plain, Application/vnd.dozen.build-events.v1+json;q=1")
    );
    assert!(!wants("application/json") && !wants("*/*") && !events::are_wanted(&HeaderMap::new()));
}
