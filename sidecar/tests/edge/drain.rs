use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tidegate_policy::stream::PolicyEvent;

use crate::authority::Authority;
use crate::engine::Engine;
use crate::operator::Operator;
use crate::sidecar::{Answer, Sidecar, eventually, get};

const TOKEN: &str = "0123456789abcdef";
const PATH: &str = "/drain/0123456789abcdef";

fn hold(sidecar: &Sidecar) -> JoinHandle<Option<Answer>> {
    let admin = sidecar.admin;
    let held = thread::spawn(move || get(admin, PATH, &[]));
    sidecar.await_status("draining", |status| status["draining"] == true);
    held
}

fn reason(answer: JoinHandle<Option<Answer>>) -> String {
    let answer = answer.join().unwrap().unwrap();
    assert_eq!(answer.status, 200);
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    body["reason"].as_str().unwrap().to_owned()
}

#[test]
fn only_the_right_token_drains() {
    let sidecar = Sidecar::start(Engine::start().address, &["--drain-token", TOKEN]);
    for path in ["/drain/0123456789abcdee", "/drain/", "/drain", "/drain/0123456789abcdef0"] {
        assert_eq!(sidecar.admin(path).unwrap().status, 404, "{path}");
    }
    assert_eq!(sidecar.status()["draining"], false);
    let none = Sidecar::start(Engine::start().address, &[]);
    assert_eq!(none.admin("/drain/").unwrap().status, 404);
}
