//! `kubectl tidegate` as people run it: the real binary, its output, its errors and its exit status.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_policy::PolicyDocument;

/// A folder with files, and the commands that are run in it.
struct Folder(TempDir);

#[allow(clippy::expect_used)] // helpers of the tests below
impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("the folder is writable");
        }
        Self(folder)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kubectl-tidegate"))
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs")
    }

    /// Runs a command that succeeds.
    fn output(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints UTF-8")
    }

    /// Runs a command that is refused, and gives the lines of its errors.
    fn errors(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "nothing half done is printed");
        let stderr = String::from_utf8(output.stderr).expect("it prints UTF-8");
        stderr.lines().map(str::to_owned).collect()
    }

    fn document(&self, arguments: &[&str]) -> PolicyDocument {
        let json = self.output(arguments);
        PolicyDocument::from_json(json.as_bytes()).expect("the sidecar accepts it")
    }
}

const SHORT: &str = "
apiVersion: tidegate.dev/v1alpha1
kind: CircuitBreakerPolicy
metadata: {name: payment}
spec: {targetService: payment-service, failureThreshold: 5, timeoutMs: 3000, fallbackEndpoint: /fallback/payment}
";

const LIMITS: &str = "
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: limits}
spec: {limits: [{name: per-key, key: [{header: X-Api-Key}], limit: 600, window: 1m}]}
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: payment-service}
spec: {selector: {app: payment}}
";

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: payment-0, labels: {app: payment}}
spec:
  containers:
  - {name: engine, image: 'vllm:1', ports: [{containerPort: 8000}]}
";

#[test]
fn the_short_form_of_a_breaker_compiles_to_a_whole_document() {
    let folder = Folder::with(&[("short.yaml", SHORT)]);
    let json: Value = serde_json::from_str(&folder.output(&["compile", "-f", "short.yaml"])).unwrap();
    assert_eq!(
        json["breaker"],
        json!({
            "policy": "default/payment",
            "mode": "Enforce",
            "trip": {"consecutiveFailures": {"count": 5}},
            "openMillis": 60000,
            "halfOpen": {"probes": 1, "rampMillis": 6000},
            "timeoutMillis": 3000,
            "fallback": {"path": "/fallback/payment"},
        })
    );
}

#[test]
fn policies_of_several_files_and_documents_come_together() {
    let both = format!("{SHORT}---\n{SERVICE}---\n");
    let folder = Folder::with(&[("a.yaml", &both), ("b.yaml", LIMITS)]);
    let document = folder.document(&["compile", "-f", "a.yaml", "-f", "b.yaml", "-n", "inference"]);
    assert_eq!(document.breaker.unwrap().policy, "inference/payment");
    assert_eq!(document.limits[0].policy, "inference/limits");
}

#[test]
fn with_a_pod_only_the_policies_that_select_it_count() {
    let other = POD.replace("app: payment", "app: other");
    let folder = Folder::with(&[
        ("policies.yaml", &format!("{SHORT}---{LIMITS}---{SERVICE}")),
        ("pod.yaml", POD),
        ("other.yaml", &other),
    ]);
    let document = |pod| folder.document(&["compile", "-f", "policies.yaml", "--pod", pod]);
    assert!(document("pod.yaml").breaker.is_some());
    assert_eq!(document("other.yaml").breaker, None);
    assert_eq!(document("other.yaml").limits.len(), 1, "the default of the namespace selects every pod");
}

#[test]
fn standard_input_is_a_file() {
    let folder = Folder::with(&[]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-tidegate"))
        .args(["compile", "-f", "-"])
        .current_dir(folder.0.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), SHORT.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(PolicyDocument::from_json(&output.stdout).unwrap().breaker.is_some());
}

#[test]
fn every_mistake_has_a_line_with_file_object_and_field() {
    let folder = Folder::with(&[
        ("a.yaml", &LIMITS.replace("1m", "1 minute").replace("600", "0")),
        ("b.yaml", &SHORT.replace("failureThreshold", "failureTreshold")),
        ("c.yaml", &SHORT.replace("v1alpha1", "v2")),
        ("d.yaml", &SHORT.replace("5,", "many,")),
        ("e.yaml", "{not: [yaml"),
        ("f.yaml", "metadata: {name: x}"),
    ]);
    let files = ["a.yaml", "b.yaml", "c.yaml", "d.yaml", "e.yaml", "f.yaml", "missing.yaml"];
    let arguments: Vec<_> =
        ["compile"].into_iter().chain(files.iter().flat_map(|file| ["-f", file])).collect();
    let errors = folder.errors(&arguments);
    let expected = [
        "error: a.yaml: RateLimitPolicy default/limits: spec.limits[0]: burst 0 is out of range: write 1 to",
        "error: a.yaml: RateLimitPolicy default/limits: spec.limits[0].limit: 0 is out of range: write 1 to",
        "error: a.yaml: RateLimitPolicy default/limits: spec.limits[0].window: \"1 minute\" is not a duration: write",
        "error: b.yaml: CircuitBreakerPolicy default/payment: spec.failureTreshold: no such field",
        "error: c.yaml: CircuitBreakerPolicy default/payment: apiVersion: \"tidegate.dev/v2\" is not known: write",
        "error: d.yaml: CircuitBreakerPolicy default/payment: spec.failureThreshold: invalid type: string",
        "error: e.yaml: not YAML: ",
        "error: f.yaml:  default/x: no kind: write apiVersion and kind",
        "error: missing.yaml: No such file",
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, expected) in errors.iter().zip(expected) {
        let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(error.starts_with(&expected), "{error:?} does not begin with {expected:?}");
    }
}

#[test]
fn files_that_give_no_single_pod_are_refused() {
    let elsewhere = LIMITS.replace("{name: limits}", "{name: limits, namespace: elsewhere}");
    let here = SHORT.replace("{name: payment}", "{name: payment, namespace: here}");
    let folder = Folder::with(&[("a.yaml", &here), ("b.yaml", &elsewhere), ("service.yaml", SERVICE)]);
    assert_eq!(
        folder.errors(&["compile", "-f", "service.yaml"]),
        ["error: no policy in the files: write a RateLimitPolicy or a CircuitBreakerPolicy"]
    );
    assert_eq!(
        folder.errors(&["compile", "-f", "a.yaml", "-f", "b.yaml"]),
        ["error: policies of the namespaces elsewhere, here never meet: choose one with --namespace"]
    );
    let document = folder.document(&["compile", "-f", "a.yaml", "-f", "b.yaml", "-n", "elsewhere"]);
    assert_eq!((document.breaker, document.limits.len()), (None, 1));
    assert_eq!(
        folder.errors(&["compile", "-f", "a.yaml", "--pod", "service.yaml"]),
        ["error: service.yaml: 0 pods: write one"]
    );
}

#[test]
fn a_pod_is_injected_as_the_webhook_would() {
    let folder = Folder::with(&[("all.yaml", &format!("{POD}---{SERVICE}---{SHORT}"))]);
    let yaml = folder.output(&["inject", "-f", "all.yaml", "--image", "registry/sidecar:2"]);
    let pod: Value = serde_saphyr::from_str(&yaml).unwrap();
    let names: Vec<_> =
        pod["spec"]["initContainers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["tidegate-redirect", "tidegate-sidecar"]);
    assert_eq!(pod["spec"]["initContainers"][1]["image"], "registry/sidecar:2");
    assert!(pod["metadata"]["annotations"]["tidegate.dev/policy-snapshot"].is_string());
    assert_eq!(pod["spec"]["containers"][0]["image"], "vllm:1");
}

#[test]
fn injected_pods_are_json_too_and_several_are_a_list() {
    let folder = Folder::with(&[("one.yaml", POD), ("two.yaml", &POD.replace("payment-0", "payment-1"))]);
    let json = |files: &[&str]| -> Value {
        let output = folder.output(&[&["inject", "-o", "json"], files].concat());
        serde_json::from_str(&output).unwrap()
    };
    let one = json(&["-f", "one.yaml"]);
    assert_eq!((&one["kind"], &one["metadata"]["name"]), (&"Pod".into(), &"payment-0".into()));
    let two = json(&["-f", "one.yaml", "-f", "two.yaml"]);
    assert_eq!(two["kind"], "List");
    let names: Vec<_> = two["items"].as_array().unwrap().iter().map(|pod| &pod["metadata"]["name"]).collect();
    assert_eq!(names, ["payment-0", "payment-1"]);
}

#[test]
fn a_pod_that_cannot_be_injected_is_printed_with_the_reason() {
    let folder = Folder::with(&[("pod.yaml", &POD.replace("spec:", "spec:\n  hostNetwork: true"))]);
    let output = folder.run(&["inject", "-f", "pod.yaml"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("skipped: Pod payment-0: HostNetwork"));
    let pod: Value = serde_saphyr::from_str(&String::from_utf8_lossy(&output.stdout)).unwrap();
    assert_eq!(pod["metadata"]["annotations"]["tidegate.dev/skipped"], "HostNetwork");
    assert_eq!(pod["spec"]["initContainers"], Value::Null);
    assert_eq!(
        Folder::with(&[("a.yaml", SHORT)]).errors(&["inject", "-f", "a.yaml"]),
        ["error: no pod in the files: write an object of kind Pod"]
    );
}

#[test]
fn a_command_that_makes_no_sense_ends_with_64_and_help_with_0() {
    let folder = Folder::with(&[]);
    for nonsense in
        [&[][..], &["compile"], &["compile", "--nonsense"], &["nonsense"], &["simulate", "-f", "a"]]
    {
        assert_eq!(folder.run(nonsense).status.code(), Some(64), "{nonsense:?}");
    }
    assert!(folder.output(&["--help"]).contains("compile"));
    assert!(folder.output(&["--version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_command_and_flag_is_in_the_documentation() {
    let pages =
        ["docs/cli.md", "docs/simulate.md"].map(|page| fs::read_to_string(workspace().join(page)).unwrap());
    let folder = Folder::with(&[]);
    let help = folder.output(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<_> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        assert!(
            pages[0].contains(&format!("kubectl tidegate {command}")),
            "docs/cli.md does not name {command}"
        );
        let help = folder.output(&[command, "--help"]);
        let words = help.split(|c: char| !c.is_alphanumeric() && c != '-');
        for flag in words.filter(|word| word.starts_with("--") && word.len() > 2 && *word != "--help") {
            assert!(pages.iter().any(|page| page.contains(flag)), "no page says what {command} {flag} does");
        }
    }
}

#[test]
fn a_cluster_that_is_not_there_is_told_in_one_line() {
    let kubeconfig = "
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]
users: [{name: u, user: {}}]
";
    let folder = Folder::with(&[("config", kubeconfig)]);
    for command in ["check", "status", "top", "rotate"] {
        let errors = folder.errors(&[command, "--kubeconfig", "config"]);
        assert!(errors.len() == 1 && errors[0].contains("refused"), "{command}: {errors:?}");
    }
    let errors = folder.errors(&["status", "--kubeconfig", "missing"]);
    assert!(errors[0].starts_with("error: no cluster: "), "{errors:?}");
}

#[test]
fn a_folder_is_its_files_in_order() {
    let folder = Folder::with(&[("short.yaml", SHORT), ("limits.yml", LIMITS), ("notes.txt", "not: [yaml")]);
    let document = folder.document(&["compile", "-f", "."]);
    assert_eq!((document.breaker.is_some(), document.limits.len()), (true, 1));
    assert_eq!(
        Folder::with(&[("notes.txt", "")]).errors(&["compile", "-f", "."]),
        ["error: .: no file in this folder ends with .yaml, .yml or .json"]
    );
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_example_compiles() {
    let mut examples: Vec<_> = fs::read_dir(workspace().join("docs/examples"))
        .unwrap()
        .map(|entry| fs::canonicalize(entry.unwrap().path()).unwrap())
        .collect();
    examples.sort();
    assert!(examples.len() >= 4, "{examples:?}");
    let folder = Folder::with(&[]);
    for example in examples {
        let document = folder.document(&["compile", "-f", example.to_str().unwrap()]);
        assert_ne!(document.revision, "none", "{}", example.display());
    }
}

/// The YAML blocks of a page.
fn blocks(page: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace().join(page)).unwrap_or_default();
    let blocks = text.split("```yaml\n").skip(1);
    blocks.filter_map(|block| block.split_once("```").map(|(yaml, _)| yaml.to_owned())).collect()
}

#[test]
fn every_policy_in_the_documentation_compiles() {
    for page in ["docs/rate-limit-policy.md", "docs/circuit-breaker-policy.md"] {
        let blocks = blocks(page);
        assert!(blocks.len() >= 3, "{page} has its examples");
        for yaml in blocks {
            let folder = Folder::with(&[("block.yaml", &yaml)]);
            let document = folder.document(&["compile", "-f", "block.yaml"]);
            assert_ne!(document.revision, "none", "{page}: {yaml}");
        }
    }
}

/// Field names in the schema of a spec, at any depth.
fn fields(schema: &Value, names: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        names.push(name.clone());
        fields(property, names);
    }
    if schema["items"].is_object() {
        fields(&schema["items"], names);
    }
}

#[test]
fn every_field_is_in_the_documentation() {
    let pages = ["docs/rate-limit-policy.md", "docs/circuit-breaker-policy.md"];
    for (definition, page) in tidegate_crds::definitions().iter().zip(pages) {
        let text = fs::read_to_string(workspace().join(page)).unwrap();
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
        let mut names = Vec::new();
        fields(&schema["openAPIV3Schema"]["properties"]["spec"], &mut names);
        // Parts of a selector, which is Kubernetes' own, and of a key value that stands in the example.
        let known = ["key", "operator", "values", "group", "kind", "name", "source", "value", "cidr"];
        let missing: Vec<_> =
            names.iter().filter(|name| !known.contains(&name.as_str()) && !text.contains(*name)).collect();
        assert!(missing.is_empty(), "{page} does not say what {missing:?} do");
    }
}
