// Tells the strictest Pod Security level that admits each pod of a JSON list on standard input, by the very rules that the
// API server applies, and what the next stricter level forbids.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

type verdict struct {
	Level   api.Level `json:"level"`
	Forbids string    `json:"forbids,omitempty"`
}

func main() {
	var pods []corev1.Pod
	if err := json.NewDecoder(os.Stdin).Decode(&pods); err != nil {
		fail(err)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		fail(err)
	}
	verdicts := []verdict{}
	for i := range pods {
		verdicts = append(verdicts, judge(evaluator, &pods[i]))
	}
	if err := json.NewEncoder(os.Stdout).Encode(verdicts); err != nil {
		fail(err)
	}
}

func judge(evaluator policy.Evaluator, pod *corev1.Pod) verdict {
	found := verdict{Level: api.LevelPrivileged}
	for _, level := range []api.Level{api.LevelBaseline, api.LevelRestricted} {
		at := api.LevelVersion{Level: level, Version: api.LatestVersion()}
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(at, &pod.ObjectMeta, &pod.Spec))
		if !result.Allowed {
			found.Forbids = result.ForbiddenDetail()
			break
		}
		found.Level = level
	}
	return found
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
