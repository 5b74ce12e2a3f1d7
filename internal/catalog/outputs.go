package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bailiwick-dev/bailiwick/internal/provenance"
)

// The labels from which a session's place in the two lattices is read.
const (
	// LabelUntrusted is the label of a session that has seen what outsiders may
	// have written.
	LabelUntrusted = "untrusted"
	// LabelUnknown is the label of a session that has seen what is from nobody
	// knows where.
	LabelUnknown = "unknown"
	// LabelInternal, LabelPrivate and LabelSecret are the labels of a session that
	// has seen what must not spread.
	LabelInternal = "internal"
	LabelPrivate  = "private"
	LabelSecret   = "secret"
)

// Returns says how far what the operation returns on a server can be trusted. A
// tool has one server; a method has many. What the operator has said nothing of
// is unknown.
func (o *Operation) Returns(server string) provenance.Marks {
	if marks, ok := o.serverMarks[server]; ok {
		return marks
	}
	return o.marks
}

// IsAuthority reports whether an argument, by its path, carries authority.
func (o *Operation) IsAuthority(path string) bool {
	return o.Undecided || slices.Contains(o.Authority, path)
}

// trust is what a rule says of what no field is said of. ok is false when it
// says nothing.
func (r outputRules) trust() (t provenance.Trust, ok bool) {
	t, ok = provenance.ParseTrust(r.Trust)
	if r.Outsiders && (!ok || t > provenance.Outsiders) {
		return provenance.Outsiders, true
	}
	return t, ok
}

// marksOf sums up rules. They add up: the least trusted word on a field counts.
// rest is for what nothing is said of.
func marksOf(rules []outputRules, rest provenance.Trust) provenance.Marks {
	m, said := provenance.Marks{Rest: provenance.Signed}, false
	for _, r := range rules {
		if t, ok := r.trust(); ok {
			m.Rest, said = min(m.Rest, t), true
		}
		m.YAML = m.YAML || r.Format == "yaml"
		for _, field := range sortedKeys(r.Fields) {
			t, _ := provenance.ParseTrust(r.Fields[field])
			m.Fields = append(m.Fields, provenance.FieldMark{Path: strings.Split(field, "."), Trust: t})
		}
	}
	if !said {
		m.Rest = rest
	}
	return m
}

// labelsOf are the labels that rules give a session.
func labelsOf(rules []outputRules) []string {
	var labels []string
	for _, r := range rules {
		labels = append(labels, r.Labels...)
		if r.Confidentiality != "" {
			labels = append(labels, r.Confidentiality)
		}
		switch marksOf([]outputRules{r}, provenance.Signed).Least() {
		case provenance.Unknown:
			labels = append(labels, LabelUnknown)
		case provenance.Outsiders:
			labels = append(labels, LabelUntrusted)
		}
	}
	return sortedSet(labels)
}

// labelled adds the label of a session that has seen what nothing is known of.
func labelled(labels []string, m provenance.Marks) []string {
	if m.Least() == provenance.Unknown {
		return sortedSet(append(labels, LabelUnknown))
	}
	return labels
}

// checkTrust finds the mistakes in what is said of trust and confidentiality.
func (o *Overlay) checkTrust(at []string, r outputRules) []*Problem {
	var ps []*Problem
	bad := func(key []string, format string, args ...any) {
		ps = append(ps, o.problem(append(slices.Clip(at), key...), "%s: %s: %s", strings.Join(at, "."), strings.Join(key, "."), fmt.Sprintf(format, args...)))
	}
	known := provenance.MarkNames()
	check := func(key []string, word string) {
		if !slices.Contains(known, word) {
			bad(key, "%q is not one of %s%s", word, strings.Join(known, ", "), didYouMean(word, known))
		}
	}
	if r.Trust != "" {
		check([]string{"trust"}, r.Trust)
	}
	if t, ok := provenance.ParseTrust(r.Trust); ok && r.Outsiders && t > provenance.Outsiders {
		bad([]string{"trust"}, "outsiders can write it, so it is no %s", r.Trust)
	}
	for _, field := range sortedKeys(r.Fields) {
		check([]string{"fields", field}, r.Fields[field])
		if slices.Contains(strings.Split(field, "."), "") {
			bad([]string{"fields", field}, "a path is names with dots between them")
		}
	}
	if !slices.Contains([]string{"", "json", "yaml"}, r.Format) {
		bad([]string{"format"}, "%q is neither \"json\" nor \"yaml\"", r.Format)
	}
	levels := []string{LabelInternal, LabelPrivate, LabelSecret}
	if r.Confidentiality != "" && !slices.Contains(levels, r.Confidentiality) {
		bad([]string{"confidentiality"}, "%q is not one of %s%s", r.Confidentiality, strings.Join(levels, ", "), didYouMean(r.Confidentiality, levels))
	}
	return ps
}
