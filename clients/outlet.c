#include "clients/outlet.h"

#include "relay/waker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

enum { QUEUE_BYTES = 64 << 10 };        /* of usual lines; as much again is for dear ones */

/* What is one write. */
struct item {
    STAILQ_ENTRY(item) entry;
    enum outlet_rank rank;
    size_t count;
    char bytes[];
};

STAILQ_HEAD(items, item);

enum state { DIRECT, QUEUED, OVER };

struct queue {
    int fd;
    pthread_t thread;

    pthread_mutex_t lock;               /* of what follows */
    pthread_cond_t changed;
    enum state state;
    struct items items;
    size_t bytes;                       /* of all items, and the one that is being written */
    unsigned long left_out;             /* lines, which is not told yet */
    bool is_writing;
    bool has_failed;                    /* nothing is taken any more */
};

static struct queue queues[] = {
    [OUTLET_OUTPUT] = { .fd = STDOUT_FILENO, .lock = PTHREAD_MUTEX_INITIALIZER,
                        .changed = PTHREAD_COND_INITIALIZER,
                        .items = STAILQ_HEAD_INITIALIZER(queues[OUTLET_OUTPUT].items) },
    [OUTLET_ERRORS] = { .fd = STDERR_FILENO, .lock = PTHREAD_MUTEX_INITIALIZER,
                        .changed = PTHREAD_COND_INITIALIZER,
                        .items = STAILQ_HEAD_INITIALIZER(queues[OUTLET_ERRORS].items) },
};

enum { QUEUES = sizeof queues / sizeof queues[0] };

static struct outlet_keeper keeper;     /* set before the threads are started */

/* Another program may have set O_NONBLOCK. */
static int write_whole(int fd, const char *bytes, size_t count)
{
    struct pollfd polled = { .fd = fd, .events = POLLOUT };

    while (count) {
        ssize_t written = write(fd, bytes, count);

        if (written < 0 && errno == EAGAIN)
            poll(&polled, 1, -1);
        else if (written < 0 && errno != EINTR)
            return -errno;
        if (written > 0) {
            bytes += written;
            count -= (size_t)written;
        }
    }
    return 0;
}

/* --- with the queue's lock held */

static bool is_empty(const struct queue *queue)
{
    return STAILQ_EMPTY(&queue->items) && !queue->is_writing && !queue->left_out;
}

/* Once a line is left out, so are those that follow, until that is told. */
static bool has_room(const struct queue *queue, enum outlet_rank rank)
{
    if (rank == OUTLET_USUAL)
        return queue->bytes < QUEUE_BYTES && !queue->left_out;
    return queue->bytes < (size_t)2 * QUEUE_BYTES;
}

static struct item *item_new(enum outlet_rank rank, const char *bytes, size_t count)
{
    struct item *item = malloc(sizeof *item + count);

    if (!item)
        return NULL;
    item->rank = rank;
    item->count = count;
    memcpy(item->bytes, bytes, count);
    return item;
}

static void put(struct queue *queue, struct item *item)
{
    STAILQ_INSERT_TAIL(&queue->items, item, entry);
    queue->bytes += sizeof *item + item->count;
    pthread_cond_broadcast(&queue->changed);
}

static struct item *take(struct queue *queue)
{
    struct item *item = STAILQ_FIRST(&queue->items);

    STAILQ_REMOVE_HEAD(&queue->items, entry);
    return item;
}

static void drop(struct queue *queue, struct item *item)
{
    queue->bytes -= sizeof *item + item->count;
    free(item);
    pthread_cond_broadcast(&queue->changed);
}

static void drop_all(struct queue *queue)
{
    queue->left_out = 0;
    while (!STAILQ_EMPTY(&queue->items))
        drop(queue, take(queue));
}

static void put_left_out(struct queue *queue)
{
    char line[OUTLET_LINE_BYTES];
    size_t count = keeper.tell_left_out(keeper.context, (enum outlet)(queue - queues),
                                        queue->left_out, line);
    struct item *item = count ? item_new(OUTLET_USUAL, line, count) : NULL;

    queue->left_out = 0;
    if (item)
        put(queue, item);
    pthread_cond_broadcast(&queue->changed);
}

static void note_failure(struct queue *queue, int err)
{
    queue->has_failed = true;
    drop_all(queue);
    pthread_cond_broadcast(&queue->changed);
    if (queue->state == QUEUED)
        keeper.failed(keeper.context, -err);
}

/* Writes the first of what there is, without the lock meanwhile. */
static void write_item(struct queue *queue)
{
    struct item *item = take(queue);
    bool may_fail = item->rank == OUTLET_FRAME || queue->fd != STDOUT_FILENO;
    int err;

    queue->is_writing = true;
    pthread_mutex_unlock(&queue->lock);
    err = write_whole(queue->fd, item->bytes, item->count);
    pthread_mutex_lock(&queue->lock);
    queue->is_writing = false;
    drop(queue, item);
    if (err && !may_fail)
        note_failure(queue, err);
}

/* --- the threads */

static void *writer_thread(void *argument)
{
    struct queue *queue = argument;

    pthread_mutex_lock(&queue->lock);
    while (queue->state == QUEUED) {
        if (!STAILQ_EMPTY(&queue->items))
            write_item(queue);
        else if (queue->left_out)
            put_left_out(queue);
        else
            pthread_cond_wait(&queue->changed, &queue->lock);
    }
    pthread_mutex_unlock(&queue->lock);
    return NULL;
}

static int start_thread(struct queue *queue)
{
    sigset_t all, before;
    int err;

    sigfillset(&all);
    sigdelset(&all, SIGTTOU);           /* stops who writes from the background, as stty tostop has it */
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pthread_mutex_lock(&queue->lock);
    err = pthread_create(&queue->thread, NULL, writer_thread, queue);
    if (!err)
        queue->state = QUEUED;
    pthread_mutex_unlock(&queue->lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -err;
}

int outlets_start(const struct outlet_keeper *its_keeper)
{
    int err = 0;

    keeper = *its_keeper;
    for (int i = 0; i < QUEUES && !err; i++)
        err = start_thread(&queues[i]);
    return err;
}

/* With the queue's lock held. */
static bool wait_until_empty(struct queue *queue, int64_t deadline_ms)
{
    struct timespec deadline = { .tv_sec = deadline_ms / 1000,
                                 .tv_nsec = deadline_ms % 1000 * 1000000 };
    int err = 0;

    while (queue->state == QUEUED && !is_empty(queue) && !err)
        err = pthread_cond_clockwait(&queue->changed, &queue->lock, CLOCK_MONOTONIC, &deadline);
    return is_empty(queue);
}

/* A thread that waits for a reader ends with the process. */
static void end_thread(struct queue *queue, int64_t deadline_ms)
{
    bool was_queued, has_written_all;

    pthread_mutex_lock(&queue->lock);
    has_written_all = wait_until_empty(queue, deadline_ms);
    was_queued = queue->state == QUEUED;
    if (was_queued)
        queue->state = has_written_all ? DIRECT : OVER;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
    if (!was_queued)
        return;
    if (has_written_all)
        pthread_join(queue->thread, NULL);
    else
        pthread_detach(queue->thread);
}

void outlets_end(void)
{
    int64_t deadline_ms = clock_ms() + OUTLET_FLUSH_MS;

    for (int i = 0; i < QUEUES; i++)
        end_thread(&queues[i], deadline_ms);
}

/* --- who writes */

static void queue_write(struct queue *queue, enum outlet_rank rank, const char *bytes, size_t count)
{
    struct item *item = has_room(queue, rank) ? item_new(rank, bytes, count) : NULL;

    if (item)
        put(queue, item);
    else
        queue->left_out++;
}

int outlet_write(enum outlet outlet, enum outlet_rank rank, const char *bytes, size_t count)
{
    struct queue *queue = &queues[outlet];
    enum state state;

    pthread_mutex_lock(&queue->lock);
    state = queue->state;
    if (state == QUEUED && !queue->has_failed)
        queue_write(queue, rank, bytes, count);
    pthread_mutex_unlock(&queue->lock);
    return state == DIRECT ? write_whole(queue->fd, bytes, count) : 0;
}

int outlet_print(enum outlet outlet, enum outlet_rank rank, const char *format, ...)
{
    va_list arguments;
    char *text;
    int length, err;

    va_start(arguments, format);
    length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0)
        return -ENOMEM;
    err = outlet_write(outlet, rank, text, (size_t)length);
    free(text);
    return err;
}

bool outlet_flush(enum outlet outlet, int timeout_ms)
{
    struct queue *queue = &queues[outlet];
    bool has_written_all;

    pthread_mutex_lock(&queue->lock);
    has_written_all = wait_until_empty(queue, clock_ms() + timeout_ms);
    pthread_mutex_unlock(&queue->lock);
    return has_written_all;
}

void outlet_wait_for_room(enum outlet outlet)
{
    struct queue *queue = &queues[outlet];

    pthread_mutex_lock(&queue->lock);
    while (queue->state == QUEUED && !queue->has_failed && !has_room(queue, OUTLET_USUAL))
        pthread_cond_wait(&queue->changed, &queue->lock);
    pthread_mutex_unlock(&queue->lock);
}
