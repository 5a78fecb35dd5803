/* What Python sees of the shim; build.py reads this file as cffi declarations too, so it holds nothing but those. */

typedef struct lf_session lf_session;

enum { LF_NEW = 0, LF_CONNECTING = 1, LF_READY = 2, LF_LOGGED_OUT = 3, LF_BROKEN = -1 };

typedef struct lf_command {
    /* in */
    uint8_t cdb[16];
    int cdb_size;
    int direction;      /* 0 none, 1 from the device, 2 to the device */
    uint32_t lun;       /* first two bytes of the SAM-5 LUN field: 0x4000 | lun from 256 on */
    void *buffer;       /* data land here, or are taken from here, without a copy */
    uint32_t length;
    /* out */
    int status;         /* SCSI status */
    int sense_key;
    int sense_code;     /* ASC << 8 | ASCQ */
    int residual_kind;  /* 0 none, 1 underflow, 2 overflow */
    uint64_t residual;
    /* the session's */
    void *batch;
    struct lf_command *next;
} lf_command;

lf_session *lf_open(const char *initiator, const char *target, const char *user, const char *secret,
                    int timeout_seconds, int digest, uint32_t isid_random, uint32_t isid_qualifier,
                    int depth, int may_write);
int lf_login(lf_session *s, const char *portal, int timeout_ms);
void lf_serve(lf_session *s, int tick_ms, int logout_ms);
int lf_execute(lf_session *s, lf_command *commands, int count);
void lf_close(lf_session *s);
void lf_bury(lf_session *s);
int lf_dead(lf_session *s);
int lf_waiting(lf_session *s);
const char *lf_why(lf_session *s);
void lf_free(lf_session *s);
