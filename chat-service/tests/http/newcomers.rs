//! What people send who have not read the protocol, and what they are told.

use reqwest::{Method, StatusCode};

use crate::support::{Answer, Setup, channel};

const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn the_right_call_is_named_where_there_is_none() {
    let service = Setup::new().start().await;
    let channel = channel();
    let whole = format!("POST /channels/{channel}/messages");
    let general = "POST /channels/<channel>/messages".to_owned();
    for (path, status, slug, call) in [
        ("/".to_owned(), 404, "not-found", &general),
        ("/mytopic".to_owned(), 404, "not-found", &general),
        (format!("/{channel}"), 404, "not-found", &whole),
        (
            format!("/channels/{channel}"),
            405,
            "method-not-allowed",
            &whole,
        ),
        (
            format!("/channels/{channel}/"),
            405,
            "method-not-allowed",
            &whole,
        ),
    ] {
        let problem = Answer::of(service.post_to(&path).body("hello"))
            .await
            .problem(status, slug);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(call.as_str()), "{path}: {detail}");
    }
    let put = service
        .client
        .request(Method::PUT, service.messages(&channel));
    let problem = Answer::of(put.body("hello")).await;
    assert_eq!(problem.header("allow"), "GET,HEAD,POST");
    let detail = problem.problem(405, "method-not-allowed")["detail"].to_string();
    assert!(detail.contains(&whole), "{detail}");
    assert_eq!(service.heads(&[&channel]).await["heads"][0]["head"], 0);
    service.stop().await;
}

#[tokio::test]
async fn a_slash_at_the_end_changes_nothing() {
    let service = Setup::new().start().await;
    let channel = channel();
    let url = format!("{}/", service.messages(&channel));
    let posted = Answer::of(service.client.post(url).body("hello")).await;
    assert_eq!(posted.status, StatusCode::ACCEPTED, "{posted:?}");
    let page = Answer::of(service.get(&format!("/channels/{channel}/messages/?after=0"))).await;
    assert_eq!(page.json()["messages"][0]["text"], "hello");
    let head = Answer::of(service.get(&format!("/channels/{channel}/"))).await;
    assert_eq!(head.json()["head"], 1);
    service.stop().await;
}

#[tokio::test]
async fn a_form_is_taken_by_its_fields_and_a_text_that_claims_to_be_one_as_it_is() {
    let service = Setup::new().start().await;
    let channel = channel();
    let post = |body: &str| {
        let request = service.post(&channel).header("content-type", FORM);
        Answer::of(request.body(body.to_owned()))
    };
    for (body, text) in [
        ("text=hello+world", "hello world"),
        ("text=gr%C3%BC%C3%9Fe", "grüße"),
        ("text=1+1", "1 1"),
        ("hello", "hello"),
        ("a=b&c+%20d", "a=b&c+%20d"),
        ("text=a&b=c", "text=a&b=c"),
        ("text=50%", "text=50%"),
    ] {
        let answer = post(body).await;
        assert!(answer.status.is_success(), "{answer:?}");
        assert_eq!(answer.json()["text"], text, "{body}");
    }
    let all = post("text=hi&type=note&from.name=Ann&data=%7B%22n%22%3A1.50%7D").await;
    assert_eq!(all.json()["type"], "note");
    assert_eq!(all.json()["from"]["name"], "Ann");
    assert!(all.body.contains(r#""data":{"n":1.50}"#), "{all:?}");
    for (body, field) in [
        ("text=", "text"),
        ("text=a&id=7", "id"),
        ("text=a&data={", "data"),
    ] {
        let problem = post(body).await.problem(422, "invalid-field");
        assert_eq!(problem["field"], field, "{body}");
    }
    service.stop().await;
}

#[tokio::test]
async fn faults_of_json_are_told_in_words_with_their_place() {
    let service = Setup::new().start().await;
    let channel = channel();
    for (body, words) in [
        ("text", "line 1, column 1: expected a value"),
        ("hello", "text/plain"),
        (
            "{'text': 'hello'}",
            "line 1, column 2: expected a name in double quotes, found 'text'",
        ),
        ("{\"text\": \"hello\"", "it ends within an object"),
    ] {
        let answer = Answer::of(service.post_json(&channel, body)).await;
        let detail = answer.problem(400, "unreadable-body")["detail"].to_string();
        assert!(detail.contains(words), "{body}: {detail}");
    }
    for (body, words) in [
        (
            r#"{"message":"hello"}"#,
            "there is no field `message`; expected one of `text`",
        ),
        (r#"{"text":"a","text":"b"}"#, "given twice"),
        (
            r#"{"text":"a","from":{"nick":"Ann"}}"#,
            "expected `id` or `name`",
        ),
        (r#"{"text":"a","from":{"name":7}}"#, "must be a string"),
    ] {
        let answer = Answer::of(service.post_json(&channel, body)).await;
        let detail = answer.problem(422, "invalid-field")["detail"].to_string();
        assert!(detail.contains(words), "{body}: {detail}");
        assert!(!detail.contains("at line"), "{detail}");
    }
    let heads = Answer::of(service.ask_heads("{}")).await;
    let problem = heads.problem(422, "invalid-field");
    assert_eq!(problem["detail"], "it is missing");
    service.stop().await;
}

#[tokio::test]
async fn a_page_from_a_file_is_told_to_be_served() {
    let service = Setup::new().start().await;
    let channel = channel();
    let post = service
        .post(&channel)
        .header("origin", "null")
        .body("hello");
    let problem = Answer::of(post).await.problem(403, "foreign-origin");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("file://") && detail.contains("http.server"),
        "{detail}"
    );
    service.stop().await;
}
