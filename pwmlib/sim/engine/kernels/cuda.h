// A pack is a warp of W environments, one kernel thread each.
struct Body {
typedef unsigned long long Address;
typedef float F;
#define AT(p,i) ((p)[(i)*W])
#define STRIDE W
#define NOINLINE __noinline__
#define SELECT(c,a,b) (((c)<0.0f)?(a):(b))
#define ANY_NEGATIVE(x) ((x)<0.0f)
#define SQRT(x) sqrtf(x)
#define SIN(x) sinf(x)
#define COS(x) cosf(x)
#define FLOOR(x) floorf(x)
#define EXP(x) expf(x)
#define TANH(x) tanhf(x)
#define LANES if(const int e=thread;e<E)
#define LANE(x) (x)
#define ROW(p,n,i) ((p)[(long long)thread*(n)+(i)])
