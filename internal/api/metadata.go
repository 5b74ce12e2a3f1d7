package api

import (
	"fmt"
	"net/http"
	"strings"
)

// wellKnown is where the metadata is (AuthZEN 1.0 §9.2). The path of the
// identifier follows it.
const wellKnown = "/.well-known/authzen-configuration"

// describe makes the metadata document (AuthZEN 1.0 §9.1; ARAP, Discovery).
// What is not offered is not in it.
func (a *API) describe() error {
	if a.AccessRequests != "" {
		if _, err := publicURL(a.AccessRequests); err != nil {
			return fmt.Errorf("the URL for access requests cannot be used: %w", err)
		}
	}
	if a.Identifier == "" {
		return nil
	}
	u, err := publicURL(a.Identifier)
	if err != nil {
		return fmt.Errorf("the identifier cannot be used: %w", err)
	}
	a.prefix = strings.TrimSuffix(u.Path, "/")
	base := strings.TrimSuffix(a.Identifier, "/")
	b := append([]byte(nil), `{"policy_decision_point":`...)
	b = quote(b, a.Identifier)
	for _, e := range []struct{ name, url string }{
		{"access_evaluation_endpoint", base + pathEvaluation},
		{"access_evaluations_endpoint", base + pathEvaluations},
		{"search_subject_endpoint", base + pathSearchSubject},
		{"search_resource_endpoint", base + pathSearchResource},
		{"search_action_endpoint", base + pathSearchAction},
		{"access_request_endpoint", a.AccessRequests},
	} {
		if e.url == "" {
			continue
		}
		b = append(b, `,"`+e.name+`":`...)
		b = quote(b, e.url)
	}
	if a.AccessRequests != "" {
		b = append(b, `,"capabilities":["urn:openid:authzen:capability:access-request"]`...)
	}
	a.metadata = append(b, '}')
	return nil
}

// isMetadata reports whether a path is that of the metadata document.
func (a *API) isMetadata(path string) bool {
	rest, ok := strings.CutPrefix(path, wellKnown)
	return ok && len(a.metadata) > 0 && (rest == "" || rest == a.prefix)
}

// describeSelf answers with the metadata.
func (e *exchange) describeSelf() *problem {
	e.w.Header()["Cache-Control"] = e.api.cacheable
	e.buf = append(e.buf, e.api.metadata...)
	e.write(http.StatusOK)
	return nil
}
