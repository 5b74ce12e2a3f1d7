package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// A rule permits or forbids a group of agents to call a tool, under conditions
// on the call: policies without this shape would be another language's home
// game.
type rule struct {
	forbid       bool
	group, tool  int
	risk, amount int // at most
	from, to     int // from <= hour < to
}

// One more rule, the first of the n, forbids everybody every call above this
// risk.
const forbiddenRisk = 90

type agent struct {
	groups    []int
	clearance int
}

// A question is a call that an agent wants to make, and the right answer.
type question struct {
	agent, tool, risk, amount, hour int
	allow                           bool
}

// A workload is what every server is given: rules, agents, tools, questions.
type workload struct {
	n           int // policies, with the one for everybody
	groups      int
	rules       []rule
	agents      []agent
	sensitivity []int // by tool
	questions   []question
}

const questions = 512

// newWorkload makes n rules and what is around them, the same ones each time.
// As the set grows so do tools, groups and agents: about ten rules are about
// one tool at any size.
func newWorkload(n int) *workload {
	r := rand.New(rand.NewPCG(uint64(n), 2))
	w := &workload{n: n, groups: max(20, n/20)}
	for range max(2, n/10) {
		w.sensitivity = append(w.sensitivity, 1+r.IntN(3))
	}
	members := make([][]int, w.groups)
	for i := range min(20_000, max(40, 2*n)) {
		a := agent{groups: r.Perm(w.groups)[:3], clearance: 1 + r.IntN(5)}
		for _, g := range a.groups {
			members[g] = append(members[g], i)
		}
		w.agents = append(w.agents, a)
	}
	type pair struct {
		forbid      bool
		group, tool int
	}
	taken := map[pair]bool{}
	for len(w.rules) < n-1 {
		u := rule{
			forbid: len(w.rules)%10 == 9,
			group:  r.IntN(w.groups), tool: r.IntN(len(w.sensitivity)),
			risk: 30 + r.IntN(70), amount: 100 * (1 + r.IntN(50)), from: r.IntN(9), to: 15 + r.IntN(9),
		}
		// OpenFGA knows one relation of one kind between two objects.
		if key := (pair{u.forbid, u.group, u.tool}); !taken[key] {
			taken[key] = true
			w.rules = append(w.rules, u)
		}
	}
	for len(w.questions) < questions {
		u := w.rules[r.IntN(len(w.rules))]
		if len(members[u.group]) == 0 {
			continue
		}
		q := question{
			agent: members[u.group][r.IntN(len(members[u.group]))], tool: u.tool,
			risk: r.IntN(100), amount: r.IntN(4000), hour: r.IntN(24),
		}
		if r.IntN(4) == 0 { // somebody whom few rules are about
			q.agent = r.IntN(len(w.agents))
		}
		// Half of the answers are yes.
		if q.allow = w.allows(q); q.allow == (len(w.questions)%2 == 0) {
			w.questions = append(w.questions, q)
		}
	}
	return w
}

// allows is the reference: what the rules say, in the plainest words.
func (w *workload) allows(q question) bool {
	permitted := false
	for _, u := range w.rules {
		if u.tool == q.tool && slices.Contains(w.agents[q.agent].groups, u.group) &&
			q.risk <= u.risk && q.amount <= u.amount && q.hour >= u.from && q.hour < u.to &&
			w.agents[q.agent].clearance >= w.sensitivity[q.tool] {
			if u.forbid {
				return false
			}
			permitted = true
		}
	}
	return permitted && q.risk <= forbiddenRisk
}

// groupNames are the groups of an agent, as everybody names them.
func (w *workload) groupNames(agent int) []string {
	var names []string
	for _, g := range w.agents[agent].groups {
		names = append(names, fmt.Sprintf("g%d", g))
	}
	return names
}

// effect is what a rule does, in the word that Cedar has for it.
func effect(u rule) string {
	if u.forbid {
		return "forbid"
	}
	return "permit"
}

type object = map[string]any

// context are the facts of the call.
func (q question) context() object {
	return object{"risk": q.risk, "amount": q.amount, "hour": q.hour}
}

// authzen is the question in the words of the AuthZEN Access Evaluation API. Who is in which group,
// and the attributes, the server knows.
func (q question) authzen() object {
	return object{
		"subject":  object{"type": "agent", "id": fmt.Sprintf("a%d", q.agent)},
		"action":   object{"name": "call_tool"},
		"resource": object{"type": "tool", "id": fmt.Sprintf("t%d", q.tool)},
		"context":  q.context(),
	}
}
