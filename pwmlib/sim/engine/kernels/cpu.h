// A pack is a SIMD vector of W environments, one kernel thread.
struct Body {
typedef unsigned long long Address;
typedef float F __attribute__((ext_vector_type(W)));
typedef int I __attribute__((ext_vector_type(W)));
#define AT(p,i) ((p)[i])
#define STRIDE 1
#define NOINLINE __attribute__((noinline))
#define SELECT(c,a,b) (((c)<F(0.0f))?(a):(b))
#define ANY_NEGATIVE(x) __builtin_reduce_or((I)((x)<F(0.0f)))
#define SQRT(x) __builtin_elementwise_sqrt(x)
#define SIN(x) sine(x,0)
#define COS(x) sine(x,1)
#define FLOOR(x) __builtin_elementwise_floor(x)
#define EACH(f,x) ({const F y=x; F v; for(int k=0;k<W;++k)v[k]=f(y[k]); v;})
#define EXP(x) EACH(expf,x)
#define TANH(x) EACH(tanhf,x)
#define LANES for(int k=0;k<W;++k)if(const int e=pack*W+k;e<E)
#define LANE(x) (x)[k]
// Any lane may be read: those beyond the last environment repeat it.
#define ROW(p,n,i) row(p,n,i,pack*W,E)
// sin(x) or, with shift 1, cos(x): Cody-Waite reduction to [-pi/4, pi/4], then a polynomial.
static __attribute__((always_inline)) F sine(F x,int shift){
 const F j=__builtin_elementwise_roundeven(x*F(0.636619772f)); const I n=__builtin_convertvector(j,I)+shift;
 F r=x-j*F(1.5707962513e+0f); r=r-j*F(7.5497894159e-8f); r=r-j*F(5.3903029534742384e-15f); const F z=r*r;
 const F s=((F(-1.9515295891e-4f)*z+F(8.3321608736e-3f))*z-F(1.6666654611e-1f))*z*r+r;
 const F c=((F(2.443315711809948e-5f)*z-F(1.388731625493765e-3f))*z+F(4.166664568298827e-2f))*z*z-F(0.5f)*z+F(1.0f);
 const F v=((n&1)!=0)?c:s; return ((n&2)!=0)?-v:v;
}
static __attribute__((always_inline)) F row(const float*p,int n,int i,int first,int E){
 F v; for(int k=0;k<W;++k){const int e=first+k<E?first+k:E-1; v[k]=p[e*n+i];} return v;
}
