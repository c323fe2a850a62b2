/* address_table: how much of something each address may do, as a bucket of
 * tokens for each: so many at once, and then one more each time an interval has
 * passed.
 *
 * The memory is fixed, however many addresses come. Whoever has all tokens is
 * not in the table; where it is full, whoever lacks the least makes room. A
 * network of IPv6 (/64) counts as one address, since each customer has at least
 * that. Where an address is kept is decided by a keyed hash, so that nobody can
 * choose addresses that push out a certain other. Any thread. */
#ifndef RELAY_ADDRESS_TABLE_H
#define RELAY_ADDRESS_TABLE_H

#include "relay/net_address.h"

#include <stdbool.h>
#include <stdint.h>

struct address_table;

/* 0 or a negative errno; *table is the caller's until address_table_free. */
int address_table_new(unsigned tokens, int64_t interval_ms, struct address_table **table);
void address_table_free(struct address_table *table);

/* Other numbers from now on; what addresses lack of tokens stays, in time. Any thread. */
void address_table_change(struct address_table *table, unsigned tokens, int64_t interval_ms);

/* Whether the two count as one address. */
bool address_table_are_one(const struct net_address *a, const struct net_address *b);

/* So many tokens at once, and the next each time as much of a minute has passed: makes
 * the table, or changes it. For 0 it stays as it was: its owner does not ask it then, and
 * what began before goes on. 0 or a negative errno. */
int address_table_set_per_minute(struct address_table **table, size_t per_minute);

/* Takes a token: 0; or how many milliseconds it is until there is one. */
int64_t address_table_take(struct address_table *table, const struct net_address *address,
                           int64_t now_ms);

/* As address_table_take, but takes nothing. */
int64_t address_table_look(struct address_table *table, const struct net_address *address,
                           int64_t now_ms);

/* Gives one back that was taken. */
void address_table_give(struct address_table *table, const struct net_address *address);

#endif
