//! Budgets of tokens, from the policy to the pod.

use tidegate_e2e::harness::{Engine, in_namespace};

#[tokio::test]
async fn a_budget_of_tokens_is_spent_by_key_and_model_and_refuses_what_it_cannot_hold() -> anyhow::Result<()>
{
    in_namespace(async |lab| {
        let pods = lab.engine(&Engine::new("llama").label("tidegate.dev/inject", "enabled")).await?;
        lab.apply(
            "{apiVersion: tidegate.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: budgets}, spec: {
               targetRefs: [{group: apps, kind: Deployment, name: llama}],
               limits: [
                 {name: tph, key: [{header: x-api-key}, {source: Model}], limit: 10, window: 1h, cost: TotalTokens},
                 {name: tpd, limit: 1000, window: 24h, algorithm: SlidingWindow, cost: WeightedTokens,
                  weights: {output: 2}, onExhausted: Finish}]}}",
        )
        .await?;
        lab.until_programmed(&pods[0]).await?;
        // Each is a prompt of two tokens and an answer of two.
        for (key, statuses) in [("one", [200, 200, 429]), ("two", [200, 200, 429])] {
            for status in statuses {
                let answer = lab.complete(&pods[0], &[("x-api-key", key)]).await?;
                assert_eq!(answer.status, status, "{key}: {}", answer.body);
                if status == 429 {
                    let reason = format!("limit; policy={}/budgets; rule=tph", lab.namespace);
                    assert_eq!(answer.header("x-tidegate-reason"), reason);
                }
            }
        }
        for kind in ["input", "output"] {
            let series = format!(
                "gen_ai_client_token_usage_sum{{gen_ai_operation_name=\"text_completion\",\
                 gen_ai_provider_name=\"openai\",gen_ai_token_type=\"{kind}\"}}"
            );
            let tokens = lab.metric(&pods[0], &series).await?;
            assert!((tokens - 8.0).abs() < f64::EPSILON, "{tokens} tokens of {kind}");
        }
        Ok(())
    })
    .await
}
