//! From `kubectl apply` to the pod and back.

use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::DeleteParams;
use tidegate_crds::RateLimitPolicy;
use tidegate_e2e::harness::{
    Client, Engine, Lab, PATIENCE, Traffic, alone, engine_url, eventually, in_namespace,
};

fn limit(requests: u32) -> String {
    format!(
        "{{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {{name: limit}}, spec: {{
           targetRefs: [{{group: apps, kind: Deployment, name: llama}}],
           limits: [{{name: all, algorithm: TokenBucket, limit: {requests}, window: 1h, burst: {requests}}}]}}}}"
    )
}

async fn condition(lab: &Lab, policy: &str, kind: &str) -> anyhow::Result<Option<Condition>> {
    let status = lab.api::<RateLimitPolicy>().get(policy).await?.status;
    Ok(status.and_then(|status| status.conditions.into_iter().find(|condition| condition.type_ == kind)))
}

#[tokio::test]
async fn a_change_is_enforced_within_a_second_and_no_request_is_lost() -> anyhow::Result<()> {
    alone(async |lab| {
        lab.apply(&limit(1_000_000)).await?;
        let pods = lab.engine(&Engine::new("llama").replicas(2)).await?;
        for pod in &pods {
            lab.until_programmed(pod).await?;
        }
        let url = format!("{}/v1/completions", engine_url(&pods[0])?);
        let traffic = Traffic::start(&url, &[Client { priority: "medium", rate: 60.0 }]);
        let before = lab.status(&pods[0]).await?.revision;
        let mut took = Vec::new();
        for requests in [900_000, 800_000, 700_000, 600_000, 500_000] {
            let old = lab.status(&pods[1]).await?.revision;
            let applied = Instant::now();
            lab.apply(&limit(requests)).await?;
            for pod in &pods {
                lab.until(pod, "another revision", |status| status.revision != old).await?;
            }
            took.push(applied.elapsed());
        }
        let tally = traffic.stop().await?;
        took.sort();
        println!("from apply to the last of two pods: {took:?}, {} requests", tally.all("medium"));
        assert!(took[2] < Duration::from_secs(1), "took {took:?}");
        assert_eq!(tally.lost, Vec::<String>::new());
        assert_eq!(tally.all("medium"), tally.of("medium", 200), "{tally:?}");
        assert_ne!(lab.status(&pods[0]).await?.revision, before);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_tightened_limit_refuses_and_deleting_the_policy_frees_the_pod() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        let pods = lab.engine(&Engine::new("llama").label("tidegate.dev/inject", "enabled")).await?;
        lab.apply(&limit(2)).await?;
        lab.until_programmed(&pods[0]).await?;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(lab.complete(&pods[0], &[]).await?);
        }
        let codes: Vec<_> = statuses.iter().map(|answer| answer.status.as_u16()).collect();
        assert_eq!(codes, [200, 200, 429, 429]);
        let reason = statuses[3].header("x-tidegate-reason");
        assert_eq!(reason, format!("limit; policy={}/limit; rule=all", lab.namespace));
        let retry_after: u64 = statuses[3].header("retry-after").parse()?;
        assert!((1..=1800).contains(&retry_after), "{retry_after}");
        lab.api::<RateLimitPolicy>().delete("limit", &DeleteParams::default()).await?;
        lab.until(&pods[0], "no limits", |status| status.limits.is_empty()).await?;
        assert_eq!(lab.complete(&pods[0], &[]).await?.status, 200);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_invalid_policy_is_refused_with_what_to_write_instead() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        for (spec, advice) in [
            ("tiers: {qps: {sampleInterval: 1s}}", "learned"),
            ("limits: [{name: all, algorithm: SlidingWindow, limit: 5, window: 1m, burst: 5}]", "burst"),
            ("limits: [{name: all, algorithm: TokenBucket, limit: 5, window: 1 minute}]", "window"),
            ("targetRefs: [{group: apps, kind: Deployment, name: a}]\n  selector: {matchLabels: {a: b}}\n  limits: [{name: all, algorithm: TokenBucket, limit: 5, window: 1m}]", "targetRefs"),
            ("tiers: {qps: {max: \"400\", learned: {minimumSamples: 5000}}}", "minimumSamples"),
        ] {
            let yaml = format!(
                "apiVersion: tidegate.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: wrong}}\nspec:\n  {spec}\n"
            );
            let refusal = lab.apply(&yaml).await.expect_err(&yaml);
            let text = format!("{refusal:#}");
            println!("{text}");
            assert!(text.contains(advice), "{text}");
        }
        let breaker = "{apiVersion: tidegate.dev/v1alpha1, kind: CircuitBreakerPolicy, metadata: {name: wrong},
                        spec: {targetService: llama, selector: {matchLabels: {a: b}}, failureThreshold: 5}}";
        let text = format!("{:#}", lab.apply(breaker).await.expect_err("two targets"));
        assert!(text.contains("write one of them"), "{text}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn status_says_where_a_policy_is_in_force() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(&limit(10)).await?;
        eventually("TargetNotFound", PATIENCE, async || {
            let accepted = condition(lab, "limit", "Accepted").await.map_err(|error| error.to_string())?;
            match accepted {
                Some(found) if found.reason == "TargetNotFound" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        lab.engine(&Engine::new("llama").replicas(2)).await?;
        let policies = lab.api::<RateLimitPolicy>();
        eventually("two pods programmed", PATIENCE, async || {
            let status =
                policies.get("limit").await.map_err(|error| error.to_string())?.status.ok_or("no status")?;
            let true_ones = status.conditions.iter().filter(|condition| condition.status == "True");
            let pods = &status.pods;
            if (pods.matched, pods.injected, pods.programmed) == (2, 2, 2) && true_ones.count() == 2 {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await
    })
    .await
}

#[tokio::test]
async fn in_shadow_mode_everything_passes_and_is_counted() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        let pods = lab.engine(&Engine::new("llama").label("tidegate.dev/inject", "enabled")).await?;
        lab.apply(&limit(1).replace("spec: {", "spec: {mode: Shadow,")).await?;
        lab.until_programmed(&pods[0]).await?;
        for _ in 0..3 {
            assert_eq!(lab.complete(&pods[0], &[]).await?.status, 200);
        }
        let refused = r#"tidegate_requests_total{decision="shadow_refused",cause="limit",priority="medium"}"#;
        assert!((lab.metric(&pods[0], refused).await? - 2.0).abs() < f64::EPSILON);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_example_and_the_plain_manifests_are_accepted() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        let workspace =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the workspace");
        // The namespace that the examples are written for.
        lab.apply("{apiVersion: v1, kind: Namespace, metadata: {name: inference}}").await?;
        let mut examples = 0;
        for entry in std::fs::read_dir(workspace.join("docs/examples"))? {
            let path = entry?.path();
            lab.apply(&std::fs::read_to_string(&path)?).await.with_context(|| path.display().to_string())?;
            examples += 1;
        }
        assert!(examples > 0);
        let manifests = std::fs::read_to_string(workspace.join("manifests/tidegate.yaml"))?;
        lab.would_apply(&manifests).await
    })
    .await
}

#[tokio::test]
async fn plans_hold_by_a_route_s_tag_and_every_answer_tells_what_is_left() -> anyhow::Result<()> {
    in_namespace(async |lab| {
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: plans}, spec: {
               targetRefs: [{group: apps, kind: Deployment, name: llama}], rateLimitHeaders: Always,
               plans: {from: {header: x-route-tag}, default: silver, plans: [
                 {name: gold, limit: 3, window: 1h}, {name: silver, limit: 1, window: 1h}]}}}",
        )
        .await?;
        let pods = lab.engine(&Engine::new("llama")).await?;
        lab.until_programmed(&pods[0]).await?;
        for (tag, most) in [("gold", 3_usize), ("silver", 1), ("bronze", 0)] {
            for left in (0..most).rev() {
                let answer = lab.complete(&pods[0], &[("x-route-tag", tag)]).await?;
                assert_eq!(answer.status, 200, "{tag}");
                assert_eq!(answer.header("x-ratelimit-remaining-requests"), left.to_string(), "{tag}");
            }
            // Who names no plan has that of silver, and its one request is spent.
            let plan = if tag == "gold" { "gold" } else { "silver" };
            let refused = lab.complete(&pods[0], &[("x-route-tag", tag)]).await?;
            assert_eq!(refused.status, 429, "{tag}");
            let reason = format!("limit; policy={}/plans; rule=plan-{plan}", lab.namespace);
            assert_eq!(refused.header("x-tidegate-reason"), reason);
        }
        Ok(())
    })
    .await
}
