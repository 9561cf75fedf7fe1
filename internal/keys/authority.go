package keys

import (
	"fmt"
	"strings"
)

// Authority is what an actor may do. The zero value may do nothing.
type Authority struct {
	// Operator acts in every organization, without holding its permissions.
	Operator bool
	// Organization is the only one that exists for anyone else.
	Organization string
	// Space is the only one that exists for an actor restricted to it.
	Space string
	// Held returns what the actor holds at its organization or, with the id of a
	// space, there. Sets belong to Policy.
	Held func(space string) Set
	// Policy is the one that Held was computed under; nil: the one in force.
	Policy *Policy
}

// ForbiddenError says that the actor may not do what it asked for.
type ForbiddenError struct {
	// Required is a permission that would be needed, Granted what there is.
	Required []string
	Granted  []string
	// Fields are those of the input that go too far, if it was these.
	Fields []FieldError
	Detail string
}

func (e *ForbiddenError) Error() string { return e.Detail }

// Sees reports whether an organization exists for the actor. The operators'
// own things belong to the organization "".
func (a *Authority) Sees(organization string) bool {
	return a.Operator || organization != "" && organization == a.Organization
}

// Holds reports whether the actor holds a permission at its organization or,
// with the id of a space, there.
func (a *Authority) Holds(permission, space string) bool {
	if a.Operator {
		return true
	}
	if a.Held == nil || a.Policy == nil || a.Space != "" && space != a.Space {
		return false
	}
	i, ok := a.Policy.Catalogue.Index(permission)
	return ok && a.Held(space).Has(i)
}

// require wants one of the permissions for what belongs to an organization and
// perhaps to a space of it. What the actor cannot see does not exist.
func (a *Authority) require(organization, space string, anyOf ...string) error {
	if !a.Sees(organization) && (organization != "" || a.Organization != "") {
		return ErrNotFound
	}
	for _, permission := range anyOf {
		if a.Holds(permission, space) {
			return nil
		}
	}
	if a.Space != "" && space != a.Space && space != "" {
		return ErrNotFound
	}
	return a.lacks(space, anyOf)
}

// requireIn is require for a filter, in which no organization means all of them:
// a key of the instance that is no operator's belongs to none and sees none.
func (a *Authority) requireIn(organization, space, what string, anyOf ...string) error {
	if organization == "" {
		return a.operator(what)
	}
	return a.require(organization, space, anyOf...)
}

func (a *Authority) lacks(space string, anyOf []string) error {
	e := &ForbiddenError{Required: anyOf[:1], Detail: "the API key lacks " + strings.Join(anyOf, " or ")}
	if a.Space != "" && space == "" {
		e.Detail = "the API key is restricted to a space and this is about the whole organization"
	}
	if a.Held != nil && a.Policy != nil {
		e.Granted = a.Policy.Catalogue.Names(a.Held(space))
	}
	return e
}

// operator wants an operator of the instance; what is asked for stands in the
// error, such as "to set a plan".
func (a *Authority) operator(what string) error {
	if a.Operator {
		return nil
	}
	return &ForbiddenError{Required: []string{PermissionOperator}, Detail: "only an operator of the instance may " + what}
}

// covers reports what of the permissions, as they are written, goes beyond what
// the actor holds at a place: nobody hands on what they lack. An operator is
// not bound by what it holds.
func (a *Authority) covers(permissions []string, space string) (beyond []string) {
	if a.Operator {
		return nil
	}
	if a.Held == nil || a.Policy == nil {
		return permissions
	}
	held, catalogue := a.Held(space), a.Policy.Catalogue
	for _, name := range catalogue.Names(catalogue.Expand(permissions)) {
		if i, _ := catalogue.Index(name); !held.Has(i) {
			beyond = append(beyond, name)
		}
	}
	if len(beyond) > 0 {
		return beyond
	}
	for _, name := range permissions { // a wildcard may match more one day
		if !held.holdsAll(catalogue.Expand([]string{name})) {
			beyond = append(beyond, name)
		}
	}
	return beyond
}

// mayBe refuses to let the actor act as another account: whoever has the secret of
// a key of that account keeps it when its own roles are taken away, and passes for
// the other in the upstream's eyes. Who manages the members may.
func (a *Actor) mayBe(account, space string) error {
	if a.Operator || account == a.Account || a.Holds(PermissionMembers, space) {
		return nil
	}
	return &ForbiddenError{
		Required: []string{PermissionMembers},
		Detail:   "the key belongs to another account than the API key that asks for its secret: that needs " + PermissionMembers,
	}
}

// beyondError says which field would hand on what the actor lacks.
func beyondError(field, what string, beyond []string) error {
	detail := fmt.Sprintf("%s goes beyond what the API key itself may do: it lacks %s", what, shorten(beyond, 5))
	return &ForbiddenError{Required: beyond, Detail: detail, Fields: []FieldError{{Field: field, Problem: detail}}}
}

// Names lists what the actor holds at its organization or at a space, sorted.
func (a *Authority) Names(space string) []string {
	if a.Held == nil || a.Policy == nil {
		return nil
	}
	return a.Policy.Catalogue.Names(a.Held(space))
}

// HasScope reports whether the actor itself holds a permission at a place, as a
// request through the gate would need it; being an operator adds nothing.
func (a *Authority) HasScope(permission, space string) bool {
	if a.Held == nil || a.Policy == nil {
		return false
	}
	i, ok := a.Policy.Catalogue.Index(permission)
	return ok && a.Held(space).Has(i)
}
