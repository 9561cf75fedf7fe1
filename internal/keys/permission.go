package keys

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"keygate/internal/spelling"
)

// Names of the permissions that keygate knows by itself.
const (
	PermissionAdmin     = "admin"
	PermissionReadAll   = "read:all"
	PermissionWriteAll  = "write:all"
	PermissionKeysRead  = "keygate:keys-read"
	PermissionKeysWrite = "keygate:keys-write"
	PermissionMembers   = "keygate:members"
	PermissionUsage     = "keygate:usage"
	PermissionAudit     = "keygate:audit"
	// PermissionOperator is for the whole instance: granted at the instance
	// only, implied by nothing.
	PermissionOperator = "keygate:operator"

	ownResource   = "keygate"
	ownWildcard   = "keygate:*" // the own permissions of an organization: all but operator
	wildcard      = "*"
	maxPermission = 100
)

// Permission is one entry of the catalogue.
type Permission struct {
	Name        string // resource:action, or "admin"
	Group       string
	Title       string // defaults to Name
	Description string
	// Administrative entries are matched by no wildcard but "*".
	Administrative bool
	// Implies names entries or wildcards that come with this one, transitively.
	Implies []string
}

// PermissionError says which entry of a catalogue is wrong.
type PermissionError struct {
	Name string
	// Implies is the position in the entry's Implies that is wrong, or -1.
	Implies int
	Problem string
}

func (e *PermissionError) Error() string { return fmt.Sprintf("permission %q: %s", e.Name, e.Problem) }

type permissionErrors []error

func (e *permissionErrors) add(name string, implies int, problem string, args ...any) {
	*e = append(*e, &PermissionError{Name: name, Implies: implies, Problem: fmt.Sprintf(problem, args...)})
}

// Catalogue is the closed set of permissions; immutable.
type Catalogue struct {
	entries []Permission // sorted by name
	index   map[string]int
	// future stand for entries that a later policy may have: sets hold them
	// behind the others, so that who holds all that a wildcard matches today is
	// told from who holds the wildcard.
	future  []Permission
	closure []Set // for each entry and future one, itself and all it implies
}

func builtinPermissions() []Permission {
	own := func(name, title string) Permission {
		return Permission{Name: name, Group: "keygate", Title: title, Administrative: true}
	}
	return []Permission{
		{Name: PermissionReadAll, Group: "Read", Title: "Read everything", Implies: []string{"*:read"}},
		{Name: PermissionWriteAll, Group: "Write", Title: "Write everything", Implies: []string{"*:write", "*:create", "*:update"}},
		{Name: PermissionAdmin, Group: "Admin", Title: "Everything", Administrative: true, Implies: []string{wildcard, ownWildcard}},
		own(PermissionKeysRead, "See API keys"),
		own(PermissionKeysWrite, "Manage API keys"),
		own(PermissionMembers, "Manage members"),
		own(PermissionUsage, "See usage"),
		own(PermissionAudit, "Read the audit log"),
		own(PermissionOperator, "Operate the instance"),
	}
}

// NewCatalogue adds the operator's permissions to the built-in ones. An entry
// of the same name replaces a built-in one, except under "keygate:". The error
// joins a *PermissionError for each wrong entry.
func NewCatalogue(own []Permission) (*Catalogue, error) {
	var errs permissionErrors
	entries := builtinPermissions()
	builtin := len(entries)
	seen := make(map[string]bool, len(own))
	for _, p := range own {
		switch problem := checkName(p.Name); {
		case problem != "":
			errs.add(p.Name, -1, "%s", problem)
			continue
		case seen[p.Name]:
			errs.add(p.Name, -1, "is defined twice")
			continue
		}
		seen[p.Name] = true
		if i := slices.IndexFunc(entries[:builtin], func(e Permission) bool { return e.Name == p.Name }); i >= 0 {
			entries[i] = p
			continue
		}
		entries = append(entries, p)
	}
	for i := range entries {
		if entries[i].Title == "" {
			entries[i].Title = entries[i].Name
		}
	}
	slices.SortFunc(entries, func(a, b Permission) int { return strings.Compare(a.Name, b.Name) })
	c := &Catalogue{entries: entries, index: make(map[string]int, len(entries))}
	for i, p := range entries {
		c.index[p.Name] = i
	}
	c.checkImplications(&errs)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.future = futureOf(entries)
	c.closure = make([]Set, c.size())
	for i := range c.closure {
		c.closure[i] = c.newSet()
		c.close(c.closure[i], i)
	}
	return c, nil
}

// futureOf has an entry that nobody can name for each wildcard that matches
// something, and one that only "*" matches.
func futureOf(entries []Permission) []Permission {
	const unnamed = "?" // no segment has it
	all := []Permission{{Name: unnamed + ":" + unnamed}}
	seen := make(map[string]bool)
	for _, p := range entries {
		resource, action, _ := strings.Cut(p.Name, ":")
		for _, name := range []string{resource + ":" + unnamed, unnamed + ":" + action} {
			if action != "" && !seen[name] {
				seen[name] = true
				all = append(all, Permission{Name: name})
			}
		}
	}
	return all
}

func (c *Catalogue) size() int { return len(c.entries) + len(c.future) }

// checkName returns what is wrong with the name of an operator's own entry.
func checkName(name string) string {
	resource, action, found := strings.Cut(name, ":")
	switch {
	case name == PermissionAdmin:
		return ""
	case len(name) > maxPermission:
		return fmt.Sprintf("is longer than %d characters", maxPermission)
	case !found || !isSegment(resource) || !isSegment(action):
		return "must be resource:action, each of letters, digits, '.', '_' and '-'"
	case resource == ownResource:
		return "the resource \"keygate\" is reserved for keygate's own permissions"
	}
	return ""
}

func isSegment(s string) bool {
	for _, c := range []byte(s) {
		if !isBase62(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return s != ""
}

// checkImplications wants every implied name to mean something and no entry to
// imply itself by name. A wildcard of a built-in entry may match nothing.
func (c *Catalogue) checkImplications(errs *permissionErrors) {
	const unseen, open, done = 0, 1, 2
	state := make([]int, len(c.entries))
	builtin := make(map[string][]string)
	for _, p := range builtinPermissions() {
		builtin[p.Name] = p.Implies
	}
	var visit func(i int)
	visit = func(i int) {
		state[i] = open
		p := c.entries[i]
		for at, name := range p.Implies {
			if name == PermissionOperator {
				errs.add(p.Name, at, "%s is granted at the instance only and cannot be implied", PermissionOperator)
				continue
			}
			if err := c.Check(name); err != nil && !slices.Contains(builtin[p.Name], name) {
				errs.add(p.Name, at, "implies %s", err)
				continue
			}
			j, named := c.index[name]
			switch {
			case named && state[j] == open:
				errs.add(p.Name, at, "implies %q, which implies it in turn", name)
			case named && state[j] == unseen:
				visit(j)
			}
		}
		state[i] = done
	}
	for i := range c.entries {
		if state[i] == unseen {
			visit(i)
		}
	}
}

// close adds entry i and everything that it implies; a set that holds an entry
// already is not entered again, which cuts cycles through wildcards.
func (c *Catalogue) close(s Set, i int) {
	if s.Has(i) {
		return
	}
	s.add(i)
	if i >= len(c.entries) {
		return
	}
	for _, name := range c.entries[i].Implies {
		c.eachMatch(name, func(j int) { c.close(s, j) })
	}
}

// eachMatch calls f for every entry that a name or wildcard stands for.
func (c *Catalogue) eachMatch(grant string, f func(i int)) {
	if i, ok := c.index[grant]; ok {
		f(i)
		return
	}
	if !strings.Contains(grant, wildcard) {
		return
	}
	for i := range c.entries {
		if matches(grant, &c.entries[i]) {
			f(i)
		}
	}
	for i := range c.future {
		if matches(grant, &c.future[i]) {
			f(len(c.entries) + i)
		}
	}
}

func matches(grant string, p *Permission) bool {
	resource, action, _ := strings.Cut(p.Name, ":")
	switch grant {
	case wildcard:
		return resource != ownResource && p.Name != PermissionAdmin
	case ownWildcard:
		return resource == ownResource && p.Name != PermissionOperator
	}
	if p.Administrative || len(p.Implies) > 0 || action == "" {
		return false
	}
	wantResource, wantAction, _ := strings.Cut(grant, ":")
	return wantResource == resource && wantAction == wildcard || wantResource == wildcard && wantAction == action
}

// Check reports why a name or wildcard cannot be granted, or nil.
func (c *Catalogue) Check(grant string) error {
	if _, ok := c.index[grant]; ok {
		return nil
	}
	if len(grant) > maxPermission {
		return fmt.Errorf("a permission of %d characters: at most %d are allowed", len(grant), maxPermission)
	}
	if !strings.Contains(grant, wildcard) {
		return fmt.Errorf("%q, which is not in the catalogue", grant)
	}
	resource, action, found := strings.Cut(grant, ":")
	if grant != wildcard && (!found || (resource == wildcard) == (action == wildcard) ||
		resource != wildcard && !isSegment(resource) || action != wildcard && !isSegment(action)) {
		return fmt.Errorf("%q: a wildcard stands for a whole segment: \"resource:*\", \"*:action\" or \"*\"", grant)
	}
	matched := false
	c.eachMatch(grant, func(i int) { matched = matched || i < len(c.entries) })
	if !matched {
		return fmt.Errorf("%q, which matches nothing in the catalogue", grant)
	}
	return nil
}

// likely ends a message about a name that Check does not let pass with the entry
// that it is probably a misspelling of, or with nothing.
func (c *Catalogue) likely(grant string) string {
	if len(grant) > maxPermission || strings.Contains(grant, wildcard) {
		return ""
	}
	names := make([]string, len(c.entries))
	for i, p := range c.entries {
		names[i] = p.Name
	}
	if best := spelling.Closest(grant, names); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return ""
}

// Expand returns everything that the grants stand for. What the catalogue does
// not know grants nothing.
func (c *Catalogue) Expand(grants []string) Set {
	s := c.newSet()
	for _, g := range grants {
		c.eachMatch(g, func(i int) { s.or(c.closure[i]) })
	}
	return s
}

// Index is the position of a permission in the sets of this catalogue.
func (c *Catalogue) Index(name string) (int, bool) {
	i, ok := c.index[name]
	return i, ok
}

// Titles are those of the entries among permissions whose titles say more than
// their names; nil if there are none.
func (c *Catalogue) Titles(permissions []string) map[string]string {
	var titles map[string]string
	for _, name := range permissions {
		i, ok := c.index[name]
		if !ok || c.entries[i].Title == name {
			continue
		}
		if titles == nil {
			titles = make(map[string]string)
		}
		titles[name] = c.entries[i].Title
	}
	return titles
}

// Entries lists the catalogue, sorted by name. The slice must not be changed.
func (c *Catalogue) Entries() []Permission { return c.entries }

// Names lists what a set holds, sorted.
func (c *Catalogue) Names(s Set) []string {
	names := make([]string, 0, 8)
	for i := range c.entries {
		if s.Has(i) {
			names = append(names, c.entries[i].Name)
		}
	}
	return names
}

func (c *Catalogue) newSet() Set { return make(Set, (c.size()+63)/64) }
