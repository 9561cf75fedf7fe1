package keys

import "slices"

// ActionPolicyLoad is in the audit log where another policy came into force.
const ActionPolicyLoad = "policy.load"

// Actions are all that an entry of the audit log can be about, sorted.
func Actions() []string {
	return []string{
		"account.create", "account.delete", "account.edit",
		"forms.declare",
		"grant.add", "grant.remove",
		"key.create", "key.delete", "key.edit", "key.exposed", "key.import", "key.pause", "key.resume", "key.revoke", "key.rotate",
		"organization.create", "organization.delete", "organization.edit",
		ActionPolicyLoad,
		"space.create", "space.delete", "space.edit",
	}
}

// IsAction reports whether the audit log can have entries of this action.
func IsAction(name string) bool { return slices.Contains(Actions(), name) }
