package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"keygate/internal/keys"
)

// AuditEntry says who did what to what.
type AuditEntry struct {
	_            struct{}        `json:"-" additionalProperties:"true"`
	ID           string          `json:"id"`
	At           time.Time       `json:"at"`
	Action       string          `json:"action" doc:"Such as key.create, grant.remove or policy.load."`
	Actor        string          `json:"actor" doc:"Id of the key that did it, or system."`
	ActorAccount string          `json:"actor_account,omitempty"`
	Address      string          `json:"address,omitempty" doc:"Where the request came from."`
	RequestID    string          `json:"request_id,omitempty"`
	Kind         string          `json:"kind" doc:"Of what was changed: key, organization, space, account or setting."`
	Target       string          `json:"target" doc:"Id of what was changed."`
	Organization string          `json:"organization,omitempty"`
	Before       json.RawMessage `json:"before,omitempty" doc:"As it was; left out where it is new."`
	After        json.RawMessage `json:"after,omitempty" doc:"As it became; left out where it is gone."`
}

func auditOf(e *keys.AuditEntry) AuditEntry {
	return AuditEntry{
		ID: e.ID, At: e.At, Action: e.Action, Actor: e.Actor, ActorAccount: e.ActorAccount, Address: e.Address, RequestID: e.RequestID,
		Kind: string(e.Kind), Target: e.Target, Organization: e.Organization, Before: e.Before, After: e.After,
	}
}

// AuditQuery selects entries.
type AuditQuery struct {
	Organization string    `query:"organization" doc:"Id or slug. Left out: one's own, and for operators all."`
	Target       string    `query:"target" maxLength:"100" doc:"Id of what was changed."`
	Actor        string    `query:"actor" maxLength:"100" doc:"Id of the key, or of the account, that did it; or system."`
	Action       string    `query:"action" maxLength:"100" doc:"One of the actions of the log, such as key.revoke; another is refused."`
	Since        time.Time `query:"since" doc:"At this instant or later."`
	Until        time.Time `query:"until" doc:"Before this instant."`
}

type listAudit struct {
	PageQuery
	AuditQuery
}

type exportAudit struct{ AuditQuery }

func (q *AuditQuery) filter() (keys.AuditFilter, error) {
	if q.Action != "" && !keys.IsAction(q.Action) { // an empty list would look like an answer
		return keys.AuditFilter{}, &parameterError{"action", "must be one of " + strings.Join(keys.Actions(), ", ")}
	}
	return keys.AuditFilter{Organization: q.Organization, Target: q.Target, Actor: q.Actor, Action: q.Action, Since: q.Since, Until: q.Until}, nil
}

// lines is an answer that is written while it is read.
type lines struct {
	ContentType string `header:"Content-Type"`
	Body        func(huma.Context)
}

func (h *handler) registerAudit() {
	register(h, operation{
		method: http.MethodGet, path: "/v1/audit", id: "list-audit", tag: "Audit", status: http.StatusOK,
		summary: "List the audit log", detail: "Newest first. Needs keygate:audit. A page can be shorter than asked for, even empty, and still have a next one.",
		errors: []int{http.StatusNotFound}, example: Page[AuditEntry]{Items: []AuditEntry{exampleAuditEntry}},
	}, func(ctx context.Context, by *call, in *listAudit) (*body[Page[AuditEntry]], error) {
		filter, err := in.filter()
		if err != nil {
			return nil, err
		}
		page, err := fill(h, by, "audit", in.PageQuery, func(p keys.Page) ([]keys.AuditEntry, string, error) {
			found, err := h.Service.AuditLog(ctx, by.actor, filter, p)
			return found.Entries, found.Next, err
		}, func(e *keys.AuditEntry) AuditEntry { return auditOf(e) })
		return page, naming(err, "organization", "id or slug", in.Organization)
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/audit/export", id: "export-audit", tag: "Audit", status: http.StatusOK, lines: true, example: exampleAuditLine,
		summary: "Export the audit log", detail: "All that passes, newest first, a JSON object on each line. An answer that breaks off did not reach its end: the last line is whole only if a line feed follows it. Needs keygate:audit.",
		errors: []int{http.StatusNotFound},
	}, h.exportAudit)
}

const (
	exportPage = 500
	// exportPatience is how long one page may take to reach the client.
	exportPatience = 30 * time.Second
	// exportPause between two pages leaves half of the organization's looks into the
	// store to its other keys, which would find none left until the export has ended.
	exportPause = time.Second / 25
)

func (h *handler) exportAudit(ctx context.Context, by *call, in *exportAudit) (*lines, error) {
	filter, err := in.filter()
	if err != nil {
		return nil, err
	}
	read := func(after string) (keys.AuditPage, error) {
		if err := h.search(by); err != nil {
			return keys.AuditPage{}, err
		}
		return h.Service.AuditLog(ctx, by.actor, filter, keys.Page{After: after, Limit: exportPage})
	}
	patiently := func(after string) (keys.AuditPage, error) {
		for {
			page, err := read(after)
			many, ok := errors.AsType[*tooManyError](err)
			if !ok {
				return page, err
			}
			if err := sleep(ctx, many.wait); err != nil {
				return page, err
			}
		}
	}
	first, err := read("") // while an error can still be answered
	if err != nil {
		return nil, naming(err, "organization", "id or slug", in.Organization)
	}
	return &lines{ContentType: "application/jsonl", Body: func(c huma.Context) {
		_, w := humago.Unwrap(c)
		control := http.NewResponseController(w)
		encoder := json.NewEncoder(w)
		for page := first; ; {
			_ = control.SetWriteDeadline(time.Now().Add(exportPatience)) // writers of tests have none
			for i := range page.Entries {
				if encoder.Encode(auditOf(&page.Entries[i])) != nil || ctx.Err() != nil {
					return // the client is gone
				}
			}
			if page.Next == "" || by.request.Method == http.MethodHead {
				return
			}
			if sleep(ctx, exportPause) != nil {
				return // the client is gone
			}
			if page, err = patiently(page.Next); err != nil {
				by.err = err
				panic(http.ErrAbortHandler) // a clean end would pass for the whole
			}
		}
	}}, nil
}
