package wire

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/ijson"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

var errLocal = errors.New("a credential of a gate in another process must be a token, a certificate or none")

// ErrInput is wrapped by the error for a request whose input is not one I-JSON
// object.
var ErrInput = errors.New("the input is not one I-JSON object")

// AppendRequest appends a request, without its id, and without the PEP's
// credential, which travels in the HTTP header. What cannot be said in it is
// an error: [ErrInput], a local credential, text that is not UTF-8.
func AppendRequest(b []byte, req *authz.Request) ([]byte, error) {
	w := writer{b: b}
	w.request("", req)
	return w.end()
}

func (w *writer) request(name string, req *authz.Request) {
	w.open(name)
	w.credential(req.Credential)
	w.text("action", req.Action)
	w.text("server", req.Server)
	w.entity("resource", req.Resource)
	if w.raw("input", req.Input); errors.Is(w.err, errRaw) {
		w.err = ErrInput
	}
	w.text("definition", req.Definition)
	w.text("session", req.Session)
	w.text("run", req.Run)
	w.text("gate", req.Gate)
	if req.Advisory {
		w.bool("advisory", true)
	}
	w.text("correlation", req.Correlation)
	if a := req.Asserted; a != nil {
		w.open("asserted")
		w.entity("subject", a.Subject)
		w.raw("subject_properties", a.SubjectProperties)
		w.raw("action_properties", a.ActionProperties)
		w.raw("resource_properties", a.ResourceProperties)
		w.raw("context", a.Context)
		w.close()
	}
	w.close()
}

// credential writes what an agent has shown to a gate.
func (w *writer) credential(c authz.Credential) {
	switch c.Kind {
	case authz.CredentialNone:
		return
	case authz.CredentialBearer, authz.CredentialDPoP, authz.CredentialCertificate:
	default:
		w.fail(errLocal)
		return
	}
	if c.OnBehalf != "" {
		w.fail(errors.New("tokens are exchanged by the PDP itself"))
		return
	}
	w.open("credential")
	w.mustText("kind", string(c.Kind))
	w.text("value", c.Value)
	if c.Kind == authz.CredentialDPoP {
		w.text("proof", c.Proof)
		w.text("method", c.Method)
		w.text("url", c.URL)
		w.text("exchange", c.Exchange)
	}
	w.text("certificates", base64.StdEncoding.EncodeToString([]byte(c.Certificates)))
	w.close()
}

// ParseRequest reads a request. Its objects are parts of text.
func ParseRequest(r *ijson.Reader, text []byte) (authz.Request, error) {
	f := begin(r, text)
	req := f.request()
	if err := f.end(); err != nil {
		return authz.Request{}, fmt.Errorf("read request: %w", err)
	}
	return req, nil
}

func (f *form) request() (req authz.Request) {
	f.object("the request", func(member string) bool {
		switch member {
		case "credential":
			req.Credential = f.credential()
		case "action":
			req.Action = f.text(member)
		case "server":
			req.Server = f.text(member)
		case "resource":
			req.Resource = f.entity(member)
		case "input":
			req.Input = f.raw(member)
		case "definition":
			req.Definition = f.text(member)
		case "session":
			req.Session = f.text(member)
		case "run":
			req.Run = f.text(member)
		case "gate":
			req.Gate = f.text(member)
		case "advisory":
			req.Advisory = f.bool(member)
		case "correlation":
			req.Correlation = f.text(member)
		case "asserted":
			req.Asserted = f.assertion()
		default:
			return false
		}
		return true
	})
	return req
}

// credential reads the agent's credential. A local one proves nothing when it
// comes from elsewhere.
func (f *form) credential() (c authz.Credential) {
	f.object("credential", func(member string) bool {
		switch member {
		case "kind":
			c.Kind = authz.CredentialKind(f.text("credential.kind"))
		case "value":
			c.Value = f.text("credential.value")
		case "proof":
			c.Proof = f.text("credential.proof")
		case "method":
			c.Method = f.text("credential.method")
		case "url":
			c.URL = f.text("credential.url")
		case "exchange":
			c.Exchange = f.text("credential.exchange")
		case "certificates":
			der, err := base64.StdEncoding.DecodeString(f.text("credential.certificates"))
			if err != nil {
				f.complain("credential.certificates must be base64")
			}
			c.Certificates = string(der)
		default:
			return false
		}
		return true
	})
	switch c.Kind {
	case authz.CredentialBearer, authz.CredentialDPoP, authz.CredentialCertificate:
	default:
		f.complain(errLocal.Error())
	}
	return c
}

func (f *form) assertion() *authz.Assertion {
	a := &authz.Assertion{}
	f.object("asserted", func(member string) bool {
		switch member {
		case "subject":
			a.Subject = f.entity(member)
		case "subject_properties":
			a.SubjectProperties = f.raw(member)
		case "action_properties":
			a.ActionProperties = f.raw(member)
		case "resource_properties":
			a.ResourceProperties = f.raw(member)
		case "context":
			a.Context = f.raw(member)
		default:
			return false
		}
		return true
	})
	return a
}

// AppendReachable appends the question which of some operations a request
// could be for.
func AppendReachable(b []byte, req *authz.Request, ops []pep.Operation) ([]byte, error) {
	w := writer{b: b}
	w.open("")
	w.request("request", req)
	w.name("operations")
	w.b = append(w.b, '[')
	for _, o := range ops {
		w.open("")
		w.mustText("action", o.Action)
		w.text("definition", o.Definition)
		w.close()
	}
	w.trim()
	w.b = append(w.b, "],"...)
	w.close()
	return w.end()
}

// ParseReachable reads what AppendReachable wrote.
func ParseReachable(r *ijson.Reader, text []byte) (req authz.Request, ops []pep.Operation, err error) {
	f := begin(r, text)
	f.object("the question", func(member string) bool {
		switch member {
		case "request":
			req = f.request()
		case "operations":
			f.array(member, func() { ops = append(ops, f.operation()) })
		default:
			return false
		}
		return true
	})
	if err := f.end(); err != nil {
		return authz.Request{}, nil, fmt.Errorf("read question: %w", err)
	}
	return req, ops, nil
}

func (f *form) operation() (o pep.Operation) {
	f.object("an operation", func(member string) bool {
		switch member {
		case "action":
			o.Action = f.text(member)
		case "definition":
			o.Definition = f.text(member)
		default:
			return false
		}
		return true
	})
	return o
}

// AppendOutcome appends an outcome.
func AppendOutcome(b []byte, out *authz.Outcome) ([]byte, error) {
	w := writer{b: b}
	w.open("")
	w.mustText("decision", out.Decision)
	w.mustText("status", string(out.Status))
	w.integer("bytes", out.Bytes)
	w.text("error", out.Error)
	if out.Ours {
		w.bool("ours", true)
	}
	w.texts("output", out.Output)
	if out.Cut {
		w.bool("cut", true)
	}
	w.close()
	return w.end()
}

// ParseOutcome reads an outcome.
func ParseOutcome(r *ijson.Reader, text []byte) (out authz.Outcome, err error) {
	f := begin(r, text)
	f.object("the outcome", func(member string) bool {
		switch member {
		case "decision":
			out.Decision = f.text(member)
		case "status":
			out.Status = authz.OutcomeStatus(f.text(member))
		case "bytes":
			out.Bytes = f.integer(member)
		case "error":
			out.Error = f.text(member)
		case "ours":
			out.Ours = f.bool(member)
		case "output":
			f.array(member, func() { out.Output = append(out.Output, f.text(member)) })
		case "cut":
			out.Cut = f.bool(member)
		default:
			return false
		}
		return true
	})
	switch out.Status {
	case authz.OutcomeSuccess, authz.OutcomeError, authz.OutcomeAmbiguous, authz.OutcomeNotRun:
	default:
		f.complain("status must be success, error, ambiguous or not_run")
	}
	if out.Decision == "" {
		f.complain("decision is missing")
	}
	if err := f.end(); err != nil {
		return authz.Outcome{}, fmt.Errorf("read outcome: %w", err)
	}
	return out, nil
}

// ParsePrompt reads what a program says that its user said.
func ParsePrompt(r *ijson.Reader, text []byte) (said authz.Prompt, err error) {
	f := begin(r, text)
	f.object("the prompt", func(member string) bool {
		switch member {
		case "credential":
			said.Credential = f.credential()
		case "subject":
			said.Subject = f.entity(member)
		case "session":
			said.Session = f.text(member)
		case "run":
			said.Run = f.text(member)
		case "text":
			said.Text = f.text(member)
		default:
			return false
		}
		return true
	})
	if len(said.Text) > authz.MaxPrompt {
		f.complain("text is too long")
	}
	if err := f.end(); err != nil {
		return authz.Prompt{}, fmt.Errorf("read prompt: %w", err)
	}
	return said, nil
}

// AppendPrompt appends a prompt, without the PEP's credential, which travels in
// the HTTP header.
func AppendPrompt(b []byte, said *authz.Prompt) ([]byte, error) {
	w := writer{b: b}
	w.open("")
	switch said.Credential.Kind {
	case authz.CredentialNone:
	case authz.CredentialBearer:
		w.open("credential")
		w.mustText("kind", string(said.Credential.Kind))
		w.mustText("value", said.Credential.Value)
		w.close()
	default:
		w.fail(errLocal)
	}
	w.entity("subject", said.Subject)
	w.text("session", said.Session)
	w.text("run", said.Run)
	w.mustText("text", said.Text)
	w.close()
	return w.end()
}
