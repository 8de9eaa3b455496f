use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::jiff::tz::TimeZone;
use proptest::prelude::*;
use tidegate_policy::PriorityClass;

use super::{Answer, Log, Request};

fn open(text: &str) -> Result<Log, Vec<String>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let origin = format!("{}: ", file.path().display());
    let lines = |refused: crate::refused::Refused| {
        refused.lines().map(|line| line.strip_prefix(&origin).unwrap().to_owned()).collect()
    };
    Log::open(file.path(), TimeZone::UTC).map_err(lines)
}

fn requests(text: &str) -> Vec<Request> {
    open(text).unwrap().requests().unwrap().map(Result::unwrap).collect()
}

fn request(millis: u64, prompt_tokens: u64, output_tokens: u64) -> Request {
    Request {
        at: Duration::from_millis(millis),
        prompt_tokens: Some(prompt_tokens),
        output_tokens: Some(output_tokens),
        ..Request::default()
    }
}

#[test]
fn one_log_in_many_forms() {
    let expected = vec![request(0, 374, 44), request(1500, 396, 109)];
    for text in [
        "10.5,374,44\n12,396,109\n",
        "timestamp_seconds,prompt_tokens,generated_tokens\n10.5,374,44\n12,396,109\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:48.1805900,396,109",
        "output_tokens,ts_ms,prompt_tokens\n109,12000,396\n44,10500,374\n",
        "{\"time\": 10.5, \"prompt_tokens\": 374, \"output_tokens\": 44}\n\n{\"time\": \"12\", \"prompt_tokens\": 396, \"output_tokens\": 109, \"why\": null}\n",
    ] {
        assert_eq!(requests(text), expected, "{text}");
    }
}

#[test]
fn all_that_a_line_can_say_is_read() {
    let csv = "time,key,priority,path,client,status,ttft_ms,total,x-team\n\
        1,alice,LOW,/v1/completions?stream=1,192.0.2.7:4711,503,250,1.5s,\"red, blue\"\n\
        2,,-,,,,,,\n";
    let json = "{\"time\":1,\"key\":\"alice\",\"priority\":\"low\",\"path\":\"/v1/completions\",\"client\":\"192.0.2.7\",\
        \"status\":503,\"ttft\":0.25,\"total\":\"1500ms\",\"headers\":{\"X-Team\":\"red, blue\"}}\n{\"time\":2}\n";
    for text in [csv, json] {
        let requests = requests(text);
        let expected = Request {
            key: Some("alice".to_owned()),
            priority: Some(PriorityClass::Low),
            path: Some("/v1/completions".to_owned()),
            client: Some([192, 0, 2, 7].into()),
            headers: vec![("x-team".into(), "red, blue".to_owned())],
            answer: Some(Answer {
                first_token: Duration::from_millis(250),
                total: Duration::from_millis(1500),
            }),
            status: Some(503),
            ..Request::default()
        };
        assert_eq!(requests[0], expected);
        assert_eq!(requests[1], Request { at: Duration::from_secs(1), ..Request::default() });
    }
}

#[test]
fn every_bad_line_is_named_with_what_to_write() {
    let errors =
        open("time,prompt_tokens,priority\n1,2,low\n1,x,urgent\nnow,1,low\n1,2\n,1,low\n").unwrap_err();
    let expected = [
        "line 3: prompt_tokens \"x\": write a whole number; priority \"urgent\": write high, medium or low",
        "line 4: time \"now\": write seconds such as",
        "line 5: \"1,2\": 2 fields, not 3: write one for each column",
        "line 6: no time: write one in every line",
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(expected), "{error:?} does not begin with {expected:?}");
    }
    for (line, advice) in [
        ("{\"time\":", "write one object per line"),
        ("{\"time\":1,\"client\":\"me\"}", "client \"me\": write an IP address"),
        ("{\"time\":1,\"status\":20}", "status \"20\": write an HTTP status"),
        ("{\"time\":1,\"ttft\":\"2s\",\"total\":\"1s\"}", "ttft of 2s is over the total of 1s: swap them"),
        ("{\"time\":1,\"total\":-1}", "total \"-1\": write a number"),
    ] {
        let errors = open(&format!("{{\"time\":0}}\n{line}\n")).unwrap_err();
        assert!(errors[0].starts_with("line 2: ") && errors[0].contains(advice), "{errors:?}");
    }
}

#[test]
fn a_log_in_another_form_is_told_how_to_be_written() {
    for (text, advice) in [
        ("[{\"time\":1},\n{\"time\":2}]\n", "line 1: a JSON array: write one object per line"),
        ("[\n{\"time\":1}\n]\n", "line 1: a JSON array: write one object per line"),
        ("time;prompt_tokens\n1;2\n", "line 1: columns are separated by ';': separate them by commas"),
        ("time\tprompt_tokens\n1\t2\n", "line 1: columns are separated by '\\t': separate them by commas"),
    ] {
        let errors = open(text).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(advice), "{errors:?}");
    }
}

#[test]
fn a_log_of_nothing_but_mistakes_is_refused_in_few_lines() {
    let errors = open(&format!("1,2,3\n{}", "x,y,z\n".repeat(100_000))).unwrap_err();
    assert_eq!(errors.len(), 21);
    assert_eq!(errors[20], "99980 more lines are bad: correct these first");
    for empty in ["", "\n\n", "time,prompt_tokens\n"] {
        let errors = open(empty).unwrap_err();
        assert!(errors[0].starts_with("no requests: write"), "{errors:?}");
    }
}

#[test]
fn times_of_two_kinds_or_of_different_centuries_are_refused() {
    let mixed = open("1,1,1\n2023-11-16T18:15:46Z,1,1\n").unwrap_err();
    assert_eq!(
        mixed,
        ["line 2: its time is a date, but that of the lines before is a number of seconds: write all alike"]
    );
    let far = open("1700158546,1,1\n1700158547,1,1\n0,1,1\n").unwrap_err();
    assert_eq!(
        far,
        ["19677 days lie between line 3 and line 2: write times of one unit, and at most 366 days"]
    );
}

#[test]
fn a_log_that_is_missing_is_named() {
    let refused = Log::open(Path::new("nowhere.csv"), TimeZone::UTC).unwrap_err();
    assert!(refused.lines().next().unwrap().starts_with("nowhere.csv: No such file"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The oracle sorts in memory, where the log reads its lines again from their places.
    #[test]
    fn lines_in_any_order_are_read_in_order_of_time(
        millis in prop::collection::vec(0u64..5_000, 1..200),
        json: bool,
    ) {
        let line = |(i, at): (usize, &u64)| if json {
            format!("{{\"time_ms\":{at},\"prompt_tokens\":{i}}}\n")
        } else {
            format!("{}.{:03},{i},1\n", at / 1000, at % 1000)
        };
        let text: String = millis.iter().enumerate().map(line).collect();
        let first = *millis.iter().min().unwrap();
        let mut expected: Vec<_> = millis.iter().zip(0u64..).map(|(at, i)| (at - first, i)).collect();
        expected.sort_unstable();
        let read: Vec<_> = requests(&text)
            .iter()
            .map(|request| (request.at.as_millis() as u64, request.prompt_tokens.unwrap()))
            .collect();
        prop_assert_eq!(read, expected);
    }
}
