use super::*;

fn wrong(line: &str) -> String {
    match parse(line.split_whitespace()) {
        Err(Unparsed::Wrong(message)) => message,
        other => panic!("{line} gave {other:?}"),
    }
}

fn run(line: &str) -> RunArgs {
    match parse(line.split_whitespace()).unwrap().command {
        Command::Run(run) => *run,
        other => panic!("{line} gave {other:?}"),
    }
}

#[test]
fn every_wrong_command_line_is_answered_with_one_line_that_names_it() {
    for (line, named) in [
        ("s", "redirect or run"),
        ("s serve", "serve"),
        ("s run", "--guard"),
        ("s run --guard 8000 --no-such-flag", "--no-such-flag"),
        ("s run --guard many", "many"),
        ("s run --guard 0", "0"),
        ("s run --guard 70000", "70000"),
        ("s run --guard 15120", "15120"),
        ("s run --guard 8000 --listen nowhere", "nowhere"),
        ("s run --guard 8000 --workers 0", "--workers"),
        ("s run --guard 8000 --named-port 15130", "15130:8000"),
        ("s run --guard 8000 --named-port 0:8000", "15130:8000"),
        ("s run --guard 8000 --named-port 15130:9000", "--guard 9000"),
        ("s run --guard 8000 --named-port 8000:8000", "8000 is taken"),
        ("s run --guard 8000 --named-port 15121:8000", "15121 is taken"),
        ("s run --guard 8000,8001 --named-port 15130:8000,15130:8001", "one guarded port only"),
        ("s run --guard 8000 --upstream 127.0.0.1:1 --named-port 15130:8000", "--upstream"),
        ("s run --guard 8000 --log-level loud", "loud"),
        ("s run --guard 8000 --drain-deadline 25", "25s"),
        ("s run --guard 8000 --drain-token secret", "hexadecimal"),
        ("s run --guard 8000 --unlimited-path health", "/health"),
        ("s run --upstream 8000", "127.0.0.1:8000"),
        ("s run --guard 8000 --operator http://x:1 --operator-token t", "https"),
        ("s run --guard 8000 --operator https://x:1", "--operator-token"),
        ("s run --guard 8000 --operator https://x:1 --operator-token t", "--ca"),
        ("s run --guard 8000 --policy-file f --operator https://x:1 --operator-token t", "--policy-file"),
        ("s redirect --to 15120", "--guard"),
        ("s redirect --guard 15120 --to 15120", "itself"),
    ] {
        let message = wrong(line);
        assert!(message.contains(named), "{line}: {message:?} does not name {named:?}");
        assert!(!message.contains('\n'), "{line}: {message:?} is more than a line");
    }
}

#[test]
fn lists_are_repeated_or_separated_by_commas() {
    assert_eq!(run("s run --guard 8000 --guard 8001,8002").guard, [8000, 8001, 8002]);
}

#[test]
fn without_a_name_redirected_connections_are_taken_and_else_those_of_the_names() {
    assert_eq!(run("s run --guard 8000").listens(), ["[::]:15120".parse().unwrap()]);
    let named = run("s run --guard 8000,8001 --named-port 15130:8000 --named-port 15131:8001");
    assert_eq!(named.listens(), ["[::]:15130".parse().unwrap(), "[::]:15131".parse().unwrap()]);
}

#[test]
fn whatever_path_a_probe_has_is_taken_whole() {
    let run = run("s run --guard 8000 --unlimited-path /a,b --unlimited-path=/c;d=%20");
    assert_eq!(run.unlimited_path, ["/a,b", "/c;d=%20"]);
}

#[test]
fn defaults_are_those_of_an_injected_pod() {
    let run = run("s run --guard 8000");
    assert_eq!(run.listen, "[::]:15120".parse().unwrap());
    assert_eq!(run.admin, "[::]:15121".parse().unwrap());
    assert_eq!(run.drain_deadline, Duration::from_secs(25));
    assert_eq!(run.workers, None);
}

#[test]
fn durations_add_their_units_and_refuse_anything_else() {
    assert_eq!(duration("1m30s500ms"), Ok(Duration::from_millis(90_500)));
    assert_eq!(duration("604800s"), Ok(Duration::from_hours(168)));
    assert_eq!(duration("1h"), Ok(Duration::from_hours(1)));
    for garbage in ["", "0s", "5", "s", "-1s", "1.5s", "1d", "99999999999s", "1s ", "ä"] {
        assert!(duration(garbage).is_err(), "{garbage:?} was taken");
    }
}

#[test]
fn help_and_version_are_answers_and_not_errors() {
    for line in ["s --help", "s --version", "s run --help"] {
        assert!(matches!(parse(line.split_whitespace()), Err(Unparsed::Asked(_))), "{line}");
    }
}
