package mcpgate

import "context"

func (g *Gate) answerMerged(ctx context.Context, r *request) answer {
	return refuse(reasonNotFound, "not yet").answer(r.msg, r.client.era, false)
}
