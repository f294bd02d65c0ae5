package otelhook_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.yaml.in/yaml/v3"
)

// The alert rules and the dashboard query only series that the hook exports.
func TestAlertsAndDashboardUseTheNamesThatAreExported(t *testing.T) {
	b := start(t, 1)
	everyMetric(t, b)
	metrics, labels := exported(t, b)
	outcomes := outcomesOfTheDoc(t)
	for file, expressions := range map[string][]string{
		"alerts.yml":     alertExpressions(t),
		"dashboard.json": dashboardExpressions(t),
	} {
		require.NotEmpty(t, expressions, file)
		used := make(map[string]bool)
		for _, expression := range expressions {
			found := metricName.FindAllString(labelLists.ReplaceAllString(expression, ""), -1)
			require.NotEmpty(t, found, "%s: %s", file, expression)
			for _, name := range found {
				require.Contains(t, metrics, name, "%s: %s", file, expression)
				used[metrics[name]] = true
			}
			for _, list := range labelLists.FindAllString(expression, -1) {
				for _, label := range labelName.FindAllString(quotedText.ReplaceAllString(list, ""), -1) {
					require.Contains(t, labels, label, "%s: %s", file, expression)
				}
			}
			for _, match := range outcomeMatcher.FindAllStringSubmatch(expression, -1) {
				require.Contains(t, outcomes, match[1], "%s: %s", file, expression)
			}
		}
		if file == "dashboard.json" {
			require.Len(t, used, 6, "every metric is on the dashboard")
		}
	}
}

var (
	metricName     = regexp.MustCompile(`redlock_\w+`)
	labelLists     = regexp.MustCompile(`\{[^}]*\}|\bby \([^)]*\)`)
	labelName      = regexp.MustCompile(`\b(?:redlock|server|error)_\w+`)
	quotedText     = regexp.MustCompile(`"[^"]*"`)
	outcomeMatcher = regexp.MustCompile(`redlock_outcome="(\w+)"`)
)

// exported returns the names that the Prometheus exporter of OpenTelemetry gives the
// metrics and their attributes. A dot becomes an underscore, and the unit and the kind
// become suffixes; a unit in braces has none.
func exported(t *testing.T, b *bench) (metrics map[string]string, labels []string) {
	t.Helper()
	metrics = make(map[string]string) // the metric, by the name of a series
	underscores := strings.NewReplacer(".", "_")
	for _, m := range b.collect() {
		name := underscores.Replace(m.Name)
		switch m.Unit {
		case "s":
			name += "_seconds"
		default:
			require.Regexp(t, `^\{\w+\}$`, m.Unit, m.Name)
		}
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			if data.IsMonotonic {
				name += "_total"
			}
			metrics[name] = m.Name
		default: // a histogram
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				metrics[name+suffix] = m.Name
			}
		}
		for set := range b.points(m.Name) {
			for pair := range strings.SplitSeq(set, ",") {
				key, _, _ := strings.Cut(pair, "=")
				labels = append(labels, underscores.Replace(key))
			}
		}
	}
	return metrics, labels
}

// outcomesOfTheDoc are the first words of the table in doc.go.
func outcomesOfTheDoc(t *testing.T) (outcomes []string) {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(doc), "# Outcomes\n//\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n//\n")
	for line := range strings.Lines(table) {
		outcomes = append(outcomes, strings.Fields(line)[1])
	}
	return outcomes
}

func alertExpressions(t *testing.T) (expressions []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/monitoring/alerts.yml")
	require.NoError(t, err)
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &rules))
	operations, err := os.ReadFile("../docs/operations.md")
	require.NoError(t, err)
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			require.Contains(t, string(operations), "`"+rule.Alert+"`", "it says what each alert means")
			expressions = append(expressions, rule.Expr)
		}
	}
	return expressions
}

func dashboardExpressions(t *testing.T) (expressions []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/monitoring/dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Query any }
		}
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	for _, panel := range dashboard.Panels {
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	for _, variable := range dashboard.Templating.List {
		if query, ok := variable.Query.(map[string]any); ok {
			expressions = append(expressions, query["query"].(string))
		}
	}
	return expressions
}
